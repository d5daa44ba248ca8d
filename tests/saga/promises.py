"""
What must hold of every run after every trigger, told from the journal alone.

An independent reading: nothing here asks the core what it thinks of a step. A failed assertion
names the promise.
"""

from collections import Counter, defaultdict

from saga_engine import Saga
from saga_engine.decider.effects import Send, wake_at
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
    StopOvertaken,
)
from saga_engine.decider.run import Run, StepStatus
from saga_engine.vocabulary import Direction, Status


class Reading:
    """A journal read from its beginning; `read` holds every event against the promises."""

    def __init__(self, saga: Saga) -> None:
        self.saga = saga
        self.sent: dict[str, int] = defaultdict(int)
        self.returned: dict[str, int] = defaultdict(int)
        self.refused: set[str] = set()  # the participant's last word was a business no
        self.succeeded: set[str] = set()
        self.passed: set[str] = set()
        self.undone: set[str] = set()
        self.undoing: set[str] = set()
        self.stopping = False
        self.past_pivot = False
        self.open: set[int] = set()

    def may_have_effect(self, step: str) -> bool:
        return step in self.succeeded or (
            self.sent[step] > self.returned[step] and step not in self.refused
        )

    def owed(self, step: str) -> bool:
        read_only = self.saga.steps[step].read_only
        return self.may_have_effect(step) and step not in self.undone and not read_only

    def read(self, event: Event) -> None:
        match event:
            case AttemptStarted():
                self._attempted(event)
            case AttemptFailed(direction=Direction.ACTION):
                self.returned[event.step] += event.returned
            case StepRejected(direction=Direction.ACTION):
                self.refused.add(event.step)
            case StepSucceeded() | StepCompleted() | StepSkipped():
                self._settled(event)
            case IncidentOpened() | IncidentResolved():
                self._incident(event)
            case RunStopping() | RunCompensating():
                self.stopping = True
            case StopOvertaken():
                assert self.past_pivot, "only the pivot overtakes a stop"
                self.stopping = False
            case _:
                pass

    def _attempted(self, event: AttemptStarted) -> None:
        step = event.step
        if event.direction is Direction.COMPENSATION:
            self._undoing(step)
            return
        assert not self.stopping, "docs/semantics.md, 6: nothing new starts"
        assert set(self.saga.after[step]) <= self.passed, "a step waits for those before it"
        self.sent[step] += 1
        assert event.attempt == self.sent[step], "attempts count from 1"
        self.refused.discard(step)

    def _incident(self, event: IncidentOpened | IncidentResolved) -> None:
        if isinstance(event, IncidentResolved):
            self.open.remove(event.number)
        else:
            assert event.message, "an incident says why"
            self.open.add(event.number)

    def _undoing(self, step: str) -> None:
        assert self.owed(step), "nothing is undone that cannot have been done"
        assert not self.past_pivot, "docs/semantics.md, 3: after the pivot only forward"
        if step not in self.undoing:
            waiting = [later for later in self.saga.descendants[step] if self.owed(later)]
            assert not waiting, "P3 undone only after every step that depended on it"
        self.undoing.add(step)

    def _settled(self, event: StepSucceeded | StepCompleted | StepSkipped) -> None:
        if event.direction is Direction.COMPENSATION:
            self.undone.add(event.step)
            return
        late = isinstance(event, StepSucceeded) and event.late
        self.passed.add(event.step)
        if not isinstance(event, StepSkipped):
            self.succeeded.add(event.step)
            self.refused.discard(event.step)
        if self.saga.steps[event.step].pivot and not late:
            self.past_pivot = True


def assert_promises(saga: Saga, run: Run, reading: Reading) -> None:
    """What holds of a run between two triggers."""
    never_stuck(saga, run)
    assert reading.open == set(run.incidents)
    if run.status is Status.COMPLETED:
        assert reading.passed == set(saga.steps), "P2 every step succeeded or was skipped"
    if run.status is Status.COMPENSATED:
        assert not any(map(reading.owed, saga.steps)), "P3 every effect is undone"
    if run.status.finished:
        assert run.finished_at is not None
        assert not run.incidents, "a finished run needs nobody"
        assert wake_at(saga, run) is None
    else:
        assert run.finished_at is None
        blocked = {
            (name, direction)
            for name, step in run.steps.items()
            for direction in Direction
            if step.toward(direction).status is StepStatus.BLOCKED
        }
        assert blocked == {(each.step, each.direction) for each in run.incidents.values()}


def never_stuck(saga: Saga, run: Run) -> None:
    moving = [
        progress
        for step in run.steps.values()
        for progress in (step.action, step.compensation)
        if progress.status in (StepStatus.IN_FLIGHT, StepStatus.WAITING)
    ]
    if run.status is Status.ABANDONED:
        return
    assert all(progress.due_at is not None for progress in moving), "every wait has a timeout"
    if not run.status.finished:
        assert moving or run.incidents, "P1 never silently stuck"
        assert wake_at(saga, run) is not None or run.incidents, "P1 never silently stuck"


def assert_one_command(sends: list[Send], journal: list[Event]) -> None:
    """A key stands for one command with the same bytes; only a rejection makes a new one."""
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
    for place, used in keys.items():
        assert len(used) <= 1 + rejections[place], (
            "docs/semantics.md, 1: retried with the same idempotency key"
        )
    attempts = [(send.step, send.direction, send.attempt) for send in sends]
    assert len(attempts) == len(set(attempts)), "an attempt is sent once"
