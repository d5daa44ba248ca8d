"""
One run told as a story: triggers in, what was sent and recorded out.

Every trigger is held against P5 on the way: the journal, after a trip through JSON, replays to the
run, and so does its snapshot.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from saga_engine import Retry, Saga
from saga_engine.decider.decide import Decision, decide
from saga_engine.decider.effects import Send, effects, wake_at
from saga_engine.decider.events import Event, as_data, from_journal
from saga_engine.decider.evolve import replay
from saga_engine.decider.run import Incident, Progress, Run, restore, state_of
from saga_engine.decider.triggers import (
    Cancel,
    Garbled,
    Replied,
    Resolve,
    Returned,
    Start,
    Trigger,
    Woken,
)
from saga_engine.payload.encryption import PLAIN
from saga_engine.saga.rules import check
from saga_engine.vocabulary import Direction, Failure, Outcome, Resolution, Status

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TWICE = Retry(attempts=2, initial=timedelta(seconds=1), jitter=0)
TIMEOUT = timedelta(seconds=30)
ACTION, COMPENSATION = Direction.ACTION, Direction.COMPENSATION


def add(saga: Saga, name: str, *, undo: bool = True, undo_retry: Retry = TWICE, **options: Any):
    """Declare a step `do.<name>`, undone by `undo.<name>`."""

    def action(order: dict) -> dict:
        return {"do": name, "order": order.get("id")}

    def compensation(order: dict) -> dict:
        return {"undo": name, "order": order.get("id")}

    action.__name__ = name
    step = saga.step(command=f"do.{name}", **{"retry": TWICE, "timeout": TIMEOUT, **options})(
        action
    )
    if undo:
        step.compensation(command=f"undo.{name}", timeout=TIMEOUT, retry=undo_retry)(compensation)
    return step


def sequence(*names: str, pivot: str | None = None, **options: Any) -> Saga:
    """A saga of steps in a row; those from the pivot on have no compensation."""
    saga = Saga("trip", version=1, input=dict, **options)
    undo = True
    for name in names:
        undo = undo and name != pivot
        add(saga, name, undo=undo, pivot=name == pivot)
    return saga


def fork() -> Saga:
    """`root`, then `left` and `right` beside each other, then `join`."""
    saga = Saga("fork", version=1, input=dict)
    root = add(saga, "root")
    left, right = (add(saga, name, after=[root]) for name in ("left", "right"))
    add(saga, "join", after=[left, right])
    return saga


class Story:
    """A run of *saga*, from noon on; `sent` holds what each trigger ordered, last one last."""

    sealing = PLAIN

    def __init__(self, saga: Saga, order: Any = None, now: datetime = NOON) -> None:
        check(saga)
        self.saga = saga
        self.now = now
        self.state: Run | None = None
        self.journal: list[Event] = []
        self.sends: list[Send] = []
        self.last = self.tell(Start("r-1", "k-1", {"id": 7} if order is None else order))

    @property
    def run(self) -> Run:
        assert self.state is not None
        return self.state

    @property
    def status(self) -> Status:
        return self.run.status

    @property
    def sent(self) -> list[str]:
        """What the last trigger sent, as `command#attempt`."""
        return [f"{s.command}#{s.attempt}" for s in effects(self.run, self.last.events)]

    @property
    def incident(self) -> Incident:
        """The only open incident."""
        (incident,) = self.run.incidents.values()
        return incident

    def at(self, step: str, direction: Direction = ACTION) -> Progress:
        return self.run.steps[step].toward(direction)

    def tell(self, trigger: Trigger) -> Decision:
        before = self.state
        self.last = decide(self.saga, before, trigger, self.now, self.sealing)
        self.state = self.last.run
        self.journal.extend(self.last.events)
        if self.last.ignored or self.last.refused:
            assert (self.last.events, self.last.run) == ((), before)
        if self.state is not None and self.last.events:
            self.sends.extend(effects(self.state, self.last.events))
            assert_replays(self.journal, self.state)
        return self.last

    def succeeds(self, step: str, body: Any = None, **which: Any) -> Decision:
        return self.tell(self._reply(step, Outcome.SUCCEEDED, body=body, **which))

    def rejects(self, step: str, code: str = "no", **which: Any) -> Decision:
        return self.tell(self._reply(step, Outcome.REJECTED, failure=Failure(code), **which))

    def fails(self, step: str, **which: Any) -> Decision:
        return self.tell(
            self._reply(step, Outcome.FAILED, failure=Failure("oops", "It broke."), **which)
        )

    def undone(self, *steps: str) -> None:
        for step in steps:
            self.succeeds(step, direction=COMPENSATION)

    def garbles(self, step: str, direction: Direction = ACTION) -> Decision:
        attempt = self.at(step, direction).attempts
        return self.tell(Garbled(step, direction, attempt, "The body is not JSON."))

    def returns(self, step: str, direction: Direction = ACTION, *, first: bool = True) -> Decision:
        return self.tell(Returned(step, direction, self.at(step, direction).attempts, first))

    def wakes(self, after: timedelta | None = None) -> Decision:
        """Time passes, by default until something is due."""
        due = wake_at(self.saga, self.run)
        if after is not None:
            self.now += after
        elif due is not None:
            self.now = max(self.now, due)
        return self.tell(Woken())

    def exhausts(self, step: str, direction: Direction = ACTION) -> None:
        """No attempt of it is ever answered, until the policy gives it up."""
        order = self.saga.steps[step].order(direction)
        assert order is not None
        while self.at(step, direction).due_at is not None:
            self.wakes()

    def cancels(self) -> Decision:
        return self.tell(Cancel("ann", "changed my mind"))

    def resolves(self, resolution: str, result: Any = None, number: int | None = None) -> Decision:
        number = min(self.run.incidents, default=1) if number is None else number
        return self.tell(Resolve(number, Resolution(resolution), "ann", "because", result))

    def _reply(
        self,
        step: str,
        outcome: Outcome,
        direction: Direction = ACTION,
        attempt: int | None = None,
        **content: Any,
    ) -> Replied:
        number = self.at(step, direction).attempts if attempt is None else attempt
        return Replied(step, direction, number, outcome, **content)


def assert_replays(journal: list[Event], run: Run) -> None:
    """P5, by the journal and by the snapshot, both after a trip through JSON."""
    pages = [orjson.loads(orjson.dumps(as_data(event))) for event in journal]
    assert replay(from_journal(name, data) for name, data in pages) == run
    assert run.revision == len(journal)
    blank = replace(
        run, steps={}, stop=None, cause=None, incidents={}, incidents_ever=0, result=None
    )
    assert restore(blank, orjson.loads(orjson.dumps(state_of(run)))) == run
