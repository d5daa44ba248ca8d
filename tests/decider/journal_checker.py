"""
What must hold for every run after every trigger, checked from the journal alone.

The check is independent: nothing here asks the decider about a step. A failed assertion names the
promise.
"""

from collections import Counter, defaultdict

from saga_engine import Saga
from saga_engine.decider.commands import wake_at
from saga_engine.decider.events import (
    AttemptFailed,
    AttemptStarted,
    Event,
    IncidentOpened,
    IncidentResolved,
    RunCompensating,
    RunStopping,
    StepCompleted,
    StepRejected,
    StepSkipped,
    StepSucceeded,
    StopSuperseded,
)
from saga_engine.decider.run import Run, StepStatus
from saga_engine.vocabulary import Command, Direction, Status


class JournalChecker:
    """A journal read from its beginning; `observe` checks every event against the promises."""

    def __init__(self, saga: Saga) -> None:
        self.saga = saga
        self.sent_attempts: dict[str, int] = defaultdict(int)
        self.undelivered_attempts: dict[str, int] = defaultdict(int)
        self.rejected: set[str] = set()  # the participant's last reply was a rejection
        self.succeeded: set[str] = set()
        self.finished: set[str] = set()
        self.compensated: set[str] = set()
        self.compensating: set[str] = set()
        self.is_rolling_back = False
        self.past_pivot = False
        self.open_incidents: set[int] = set()

    def may_have_effect(self, step: str) -> bool:
        return step in self.succeeded or (
            self.sent_attempts[step] > self.undelivered_attempts[step] and step not in self.rejected
        )

    def needs_compensation(self, step: str) -> bool:
        read_only = self.saga.steps[step].read_only
        return self.may_have_effect(step) and step not in self.compensated and not read_only

    def observe(self, event: Event) -> None:
        match event:
            case AttemptStarted():
                self._on_attempt_started(event)
            case AttemptFailed(direction=Direction.ACTION):
                self.undelivered_attempts[event.step] += event.never_delivered
            case StepRejected(direction=Direction.ACTION):
                self.rejected.add(event.step)
            case StepSucceeded() | StepCompleted() | StepSkipped():
                self._on_step_finished(event)
            case IncidentOpened() | IncidentResolved():
                self._on_incident(event)
            case RunStopping() | RunCompensating():
                self.is_rolling_back = True
            case StopSuperseded():
                assert self.past_pivot, "only the pivot supersedes a stop"
                self.is_rolling_back = False
            case _:
                pass

    def _on_attempt_started(self, event: AttemptStarted) -> None:
        step = event.step
        if event.direction is Direction.COMPENSATION:
            self._on_compensation_started(step)
            return
        assert not self.is_rolling_back, "docs/semantics.md, 6: nothing new starts"
        assert set(self.saga.predecessors[step]) <= self.finished, (
            "a step waits for those before it"
        )
        self.sent_attempts[step] += 1
        assert event.attempt == self.sent_attempts[step], "attempts count from 1"
        self.rejected.discard(step)

    def _on_incident(self, event: IncidentOpened | IncidentResolved) -> None:
        if isinstance(event, IncidentResolved):
            self.open_incidents.remove(event.number)
        else:
            assert event.message, "an incident says why"
            self.open_incidents.add(event.number)

    def _on_compensation_started(self, step: str) -> None:
        assert self.needs_compensation(step), "only a step that may have an effect is compensated"
        assert not self.past_pivot, "docs/semantics.md, 3: after the pivot only forward"
        if step not in self.compensating:
            waiting = [
                later for later in self.saga.descendants[step] if self.needs_compensation(later)
            ]
            assert not waiting, "P3 compensated only after every step that depended on it"
        self.compensating.add(step)

    def _on_step_finished(self, event: StepSucceeded | StepCompleted | StepSkipped) -> None:
        if event.direction is Direction.COMPENSATION:
            self.compensated.add(event.step)
            return
        late = isinstance(event, StepSucceeded) and event.late
        self.finished.add(event.step)
        if not isinstance(event, StepSkipped):
            self.succeeded.add(event.step)
            self.rejected.discard(event.step)
        if self.saga.steps[event.step].pivot and not late:
            self.past_pivot = True


def assert_promises(saga: Saga, run: Run, checker: JournalChecker) -> None:
    """What holds for a run between two triggers."""
    assert_not_stuck(saga, run)
    assert checker.open_incidents == set(run.incidents)
    if run.status is Status.COMPLETED:
        assert checker.finished == set(saga.steps), "P2 every step succeeded or was skipped"
    if run.status is Status.COMPENSATED:
        assert not any(map(checker.needs_compensation, saga.steps)), (
            "P3 every effect is compensated"
        )
    if run.status.is_finished:
        assert run.finished_at is not None
        assert not run.incidents, "a finished run has no incident"
        assert wake_at(saga, run) is None
    else:
        assert run.finished_at is None
        blocked = {
            (name, direction)
            for name, step in run.steps.items()
            for direction in Direction
            if step.progress_of(direction).status is StepStatus.BLOCKED
        }
        assert blocked == {(each.step, each.direction) for each in run.incidents.values()}


def assert_not_stuck(saga: Saga, run: Run) -> None:
    moving = [
        progress
        for step in run.steps.values()
        for progress in (step.action, step.compensation)
        if progress.status in (StepStatus.IN_FLIGHT, StepStatus.AWAITING_RETRY)
    ]
    if run.status is Status.ABANDONED:
        return
    assert all(progress.due_at is not None for progress in moving), "every wait has a timeout"
    if not run.status.is_finished:
        assert moving or run.incidents, "P1 never silently stuck"
        assert wake_at(saga, run) is not None or run.incidents, "P1 never silently stuck"


def assert_one_command(sends: list[Command], journal: list[Event]) -> None:
    """A key is for one command with the same bytes; only a rejection makes a new one."""
    payloads: dict[str, object] = {}
    keys: dict[tuple[str, Direction], set[str]] = defaultdict(set)
    for send in sends:
        key = send.idempotency_key
        assert payloads.setdefault(key, send.payload) == send.payload, (
            "docs/semantics.md, 1: the very same bytes"
        )
        keys[send.step, send.direction].add(key)
    rejections = Counter(
        (event.step, event.direction) for event in journal if isinstance(event, StepRejected)
    )
    for step_ref, used in keys.items():
        assert len(used) <= 1 + rejections[step_ref], (
            "docs/semantics.md, 1: retried with the same idempotency key"
        )
    attempts = [(send.step, send.direction, send.attempt) for send in sends]
    assert len(attempts) == len(set(attempts)), "an attempt is sent once"
