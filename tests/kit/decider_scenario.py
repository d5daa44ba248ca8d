"""
A scenario for one run: triggers in, commands and events out.

After every trigger P5 is checked: the journal, written as JSON and read back, replays to the run,
and its snapshot restores it.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from saga_engine import Retry, Saga
from saga_engine.decider.commands import commands_to_send, wake_at
from saga_engine.decider.decide import decide
from saga_engine.decider.decision import Decision
from saga_engine.decider.events import Event
from saga_engine.decider.evolve import replay
from saga_engine.decider.run import Incident, Progress, Run
from saga_engine.decider.triggers import (
    Cancel,
    CommandUnroutable,
    MalformedReply,
    ReplyReceived,
    ResolveIncident,
    Start,
    Trigger,
    WakeUp,
)
from saga_engine.payload.encryption import NO_ENCRYPTION
from saga_engine.payload.ports import PayloadPorts
from saga_engine.saga.rules import check
from saga_engine.store.event_data import deserialize_event, serialize_event
from saga_engine.store.snapshot import restore_run, to_snapshot
from saga_engine.vocabulary import Command, Direction, Failure, Outcome, Resolution, Status

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TWO_ATTEMPTS = Retry(attempts=2, initial=timedelta(seconds=1), jitter=0)
TIMEOUT = timedelta(seconds=30)
BROKEN = Failure("oops", "It broke.")
ACTION, COMPENSATION = Direction.ACTION, Direction.COMPENSATION


def add_step(
    saga: Saga,
    name: str,
    *,
    compensated: bool = True,
    compensation_retry: Retry = TWO_ATTEMPTS,
    **options: Any,
):
    """Declare a step `do.<name>`, compensated by `undo.<name>`."""

    def action(order: dict) -> dict:
        return {"do": name, "order": order.get("id")}

    def compensation(order: dict) -> dict:
        return {"undo": name, "order": order.get("id")}

    action.__name__ = name
    step = saga.step(
        command=f"do.{name}", **{"retry": TWO_ATTEMPTS, "timeout": TIMEOUT, **options}
    )(action)
    if compensated:
        step.compensation(command=f"undo.{name}", timeout=TIMEOUT, retry=compensation_retry)(
            compensation
        )
    return step


def sequential_saga(*names: str, pivot: str | None = None, **options: Any) -> Saga:
    """A saga of steps in sequence; those from the pivot on have no compensation."""
    saga = Saga("trip", version=1, input=dict, **options)
    undo = True
    for name in names:
        undo = undo and name != pivot
        add_step(saga, name, compensated=undo, pivot=name == pivot)
    return saga


def branching_saga() -> Saga:
    """`root`, then `left` and `right` in parallel, then `join`."""
    saga = Saga("fork", version=1, input=dict)
    root = add_step(saga, "root")
    left, right = (add_step(saga, name, after=[root]) for name in ("left", "right"))
    add_step(saga, "join", after=[left, right])
    return saga


class DeciderScenario:
    """A run of *saga*, from noon on; `sends` has the commands of all triggers in order."""

    encryption = NO_ENCRYPTION

    def __init__(self, saga: Saga, order: Any = None, now: datetime = NOON) -> None:
        check(saga)
        self.saga = saga
        self.now = now
        self.state: Run | None = None
        self.journal: list[Event] = []
        self.sends: list[Command] = []
        self.last_decision = self.apply(Start("r-1", "k-1", {"id": 7} if order is None else order))

    @property
    def run(self) -> Run:
        assert self.state is not None
        return self.state

    @property
    def status(self) -> Status:
        return self.run.status

    @property
    def sent_commands(self) -> list[str]:
        """What the last trigger sent, as `command#attempt`."""
        return [
            f"{s.name}#{s.attempt}" for s in commands_to_send(self.run, self.last_decision.events)
        ]

    @property
    def incident(self) -> Incident:
        """The only open incident."""
        (incident,) = self.run.incidents.values()
        return incident

    def progress_of(self, step: str, direction: Direction = ACTION) -> Progress:
        return self.run.steps[step].progress_of(direction)

    def apply(self, trigger: Trigger) -> Decision:
        before = self.state
        self.last_decision = decide(
            self.saga, before, trigger, self.now, PayloadPorts(self.encryption)
        )
        self.state = self.last_decision.run
        self.journal.extend(self.last_decision.events)
        if self.last_decision.ignored_reason or self.last_decision.refusal:
            assert (self.last_decision.events, self.last_decision.run) == ((), before)
        if self.state is not None and self.last_decision.events:
            self.sends.extend(commands_to_send(self.state, self.last_decision.events))
            assert_replays(self.journal, self.state)
        return self.last_decision

    def succeeds(self, step: str, body: Any = None, **reply_fields: Any) -> Decision:
        return self.apply(self._reply(step, Outcome.SUCCEEDED, body=body, **reply_fields))

    def rejects(self, step: str, code: str = "no", **reply_fields: Any) -> Decision:
        return self.apply(
            self._reply(step, Outcome.REJECTED, failure=Failure(code), **reply_fields)
        )

    def fails(self, step: str, failure: Failure = BROKEN, **reply_fields: Any) -> Decision:
        return self.apply(self._reply(step, Outcome.FAILED, failure=failure, **reply_fields))

    def compensations_succeed(self, *steps: str) -> None:
        for step in steps:
            self.succeeds(step, direction=COMPENSATION)

    def malformed_reply(self, step: str, direction: Direction = ACTION) -> Decision:
        attempt = self.progress_of(step, direction).attempts
        return self.apply(
            MalformedReply(
                step=step, direction=direction, attempt=attempt, problem="The body is not JSON."
            )
        )

    def unroutable(
        self, step: str, direction: Direction = ACTION, *, never_delivered: bool = True
    ) -> Decision:
        attempt = self.progress_of(step, direction).attempts
        return self.apply(
            CommandUnroutable(step, direction, attempt, never_delivered=never_delivered)
        )

    def timer_fires(self, after: timedelta | None = None) -> Decision:
        """Time passes, by default until something is due."""
        due = wake_at(self.saga, self.run)
        if after is not None:
            self.now += after
        elif due is not None:
            self.now = max(self.now, due)
        return self.apply(WakeUp())

    def attempts_exhausted(self, step: str, direction: Direction = ACTION) -> None:
        """No attempt gets a reply, until the retry policy is exhausted."""
        assert self.saga.steps[step].command_spec(direction) is not None
        while self.progress_of(step, direction).due_at is not None:
            self.timer_fires()

    def cancels(self) -> Decision:
        return self.apply(Cancel("ann", "changed my mind"))

    def resolves(self, resolution: str, result: Any = None, number: int | None = None) -> Decision:
        number = min(self.run.incidents, default=1) if number is None else number
        return self.apply(
            ResolveIncident(
                incident_number=number,
                resolution=Resolution(resolution),
                operator="ann",
                reason="because",
                result=result,
            )
        )

    def _reply(
        self,
        step: str,
        outcome: Outcome,
        direction: Direction = ACTION,
        attempt: int | None = None,
        **content: Any,
    ) -> ReplyReceived:
        number = self.progress_of(step, direction).attempts if attempt is None else attempt
        return ReplyReceived(
            step=step, direction=direction, attempt=number, outcome=outcome, **content
        )


def assert_replays(journal: list[Event], run: Run) -> None:
    """P5 for the journal and the snapshot, both written as JSON and read back."""
    pages = [orjson.loads(orjson.dumps(serialize_event(event))) for event in journal]
    assert replay(deserialize_event(name, data) for name, data in pages) == run
    blank = replace(
        run,
        input=None,
        status=Status.RUNNING,
        finished_at=None,
        steps={},
        stop_cause=None,
        compensation_cause=None,
        incidents={},
        incident_count=0,
        result=None,
    )
    assert restore_run(blank, orjson.loads(orjson.dumps(to_snapshot(run)))) == run
