"""
evolve(run, event) -> run: the only place where a run changes.

Each arm applies what one event says and decides nothing. Folding a journal over it gives the run's
row (P5); `TRANSITIONS` is the one table of which status may follow which.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from saga_engine.decider.events import (
    AttemptFailed,
    AttemptStarted,
    Event,
    IncidentOpened,
    IncidentResolved,
    Later,
    RunAbandoned,
    RunCompensated,
    RunCompensating,
    RunCompleted,
    RunStarted,
    RunStopping,
    StepCompleted,
    StepGivenUp,
    StepRejected,
    StepSkipped,
    StepSucceeded,
    StopOvertaken,
)
from saga_engine.decider.run import Incident, Progress, Run, StepRun, StepStatus
from saga_engine.payload.serialization import changed
from saga_engine.vocabulary import Direction, Resolution, Status

Change: TypeAlias = Callable[[Progress], Progress]

TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.RUNNING: frozenset({Status.COMPENSATING, Status.COMPLETED, Status.ABANDONED}),
    Status.COMPENSATING: frozenset({Status.COMPENSATED, Status.ABANDONED}),
    # A late success can prove an effect that nobody would undo.
    Status.COMPENSATED: frozenset({Status.COMPENSATING}),
    Status.COMPLETED: frozenset(),
    Status.ABANDONED: frozenset(),
}


def evolve(run: Run | None, event: Event) -> Run:
    """
    Apply one event. The first event of a run, and only that, is a RunStarted on None.

    An AssertionError is a bug in `decide`, or a journal that this engine did not write.
    """
    if isinstance(event, RunStarted):
        assert run is None, "a run starts once"
        return _started(event)
    assert run is not None, "a run starts with run_started"
    return _applied(run, event)


def replay(events: Iterable[Event]) -> Run | None:
    """Fold a journal; None when it is empty."""
    run: Run | None = None
    for event in events:
        run = evolve(run, event)
    return run


def _started(event: RunStarted) -> Run:
    return Run(
        run_id=event.run_id,
        saga=event.saga,
        version=event.version,
        fingerprint=event.fingerprint,
        key=event.key,
        input=event.input,
        started_at=event.started_at,
        deadline=event.deadline,
        revision=1,
        steps={name: StepRun() for name in event.steps},
    )


def _applied(run: Run, event: Later) -> Run:  # noqa: C901, PLR0911, PLR0912 - one arm an event
    match event:
        case AttemptStarted():
            return _progressed(run, event.step, event.direction, _sent(event))
        case AttemptFailed():
            return _progressed(run, event.step, event.direction, _failed(event))
        case StepSucceeded() | StepCompleted():
            return _progressed(run, event.step, event.direction, _succeeded(event))
        case StepRejected():
            return _progressed(run, event.step, event.direction, _rejected(event))
        case StepGivenUp():
            final = StepStatus(event.outcome)
            return _progressed(run, event.step, Direction.ACTION, _settled(final))
        case StepSkipped():
            return _progressed(run, event.step, event.direction, _settled(StepStatus.SKIPPED))
        case IncidentOpened():
            return _incident_opened(run, event)
        case IncidentResolved():
            return _incident_resolved(run, event)
        case RunStopping():
            return _next(run, stop=event.cause)
        case StopOvertaken():
            return _next(run, stop=None)
        case RunCompensating():
            return _moved(run, Status.COMPENSATING, stop=None, cause=event.cause, finished_at=None)
        case RunCompleted():
            return _moved(run, Status.COMPLETED, result=event.result, finished_at=event.finished_at)
        case RunCompensated():
            return _moved(run, Status.COMPENSATED, finished_at=event.finished_at)
        case _:  # RunAbandoned; an event that is added does not pass the type checker here
            return _abandoned(run, event)


def _abandoned(run: Run, event: RunAbandoned) -> Run:
    return _moved(run, Status.ABANDONED, stop=None, finished_at=event.finished_at)


def _moved(run: Run, status: Status, **values: Any) -> Run:
    assert status in TRANSITIONS[run.status], f"{run.status} cannot become {status}"
    return _next(run, status=status, **values)


def _next(run: Run, **values: Any) -> Run:
    """Give the run these values; one copy for each event."""
    return changed(run, revision=run.revision + 1, **values)


def _progressed(run: Run, step: str, direction: Direction, change: Change, **values: Any) -> Run:
    before = run.steps[step]
    after = change(before.toward(direction))
    name = "action" if direction is Direction.ACTION else "compensation"
    progress = changed(before, **{name: after})
    return _next(run, steps={**run.steps, step: progress}, **values)


def _sent(event: AttemptStarted) -> Change:
    def change(before: Progress) -> Progress:
        return changed(
            before,
            status=StepStatus.IN_FLIGHT,
            attempts=event.attempt,
            round=event.round,
            sent_at=event.sent_at,
            due_at=event.due_at,
            payload=before.payload if event.payload is None else event.payload,
            rejected=False,
        )

    return change


def _failed(event: AttemptFailed) -> Change:
    given_up = StepStatus(event.outcome)

    def change(before: Progress) -> Progress:
        return changed(
            before,
            status=given_up if event.retry_at is None else StepStatus.WAITING,
            due_at=event.retry_at,
            failure=event.failure,
            returned=before.returned + event.returned,
        )

    return change


def _succeeded(event: StepSucceeded | StepCompleted) -> Change:
    def change(before: Progress) -> Progress:
        return changed(
            before,
            status=StepStatus.SUCCEEDED,
            due_at=None,
            payload=None,
            reply=event.reply,
            failure=None,
            rejected=False,
        )

    return change


def _rejected(event: StepRejected) -> Change:
    def change(before: Progress) -> Progress:
        return changed(
            before,
            status=StepStatus.REJECTED,
            due_at=None,
            payload=None,
            failure=event.failure,
            rejected=True,
        )

    return change


def _settled(final: StepStatus) -> Change:
    def change(before: Progress) -> Progress:
        return changed(before, status=final, due_at=None, payload=None)

    return change


def _incident_opened(run: Run, event: IncidentOpened) -> Run:
    incident = Incident(
        *(event.number, event.step, event.direction, event.cause, event.message, event.opened_at),
        event.kept,
    )

    def change(before: Progress) -> Progress:
        return changed(before, status=StepStatus.BLOCKED, due_at=None)

    return _progressed(
        *(run, event.step, event.direction, change),
        incidents={**run.incidents, event.number: incident},
        incidents_ever=run.incidents_ever + 1,
    )


def _incident_resolved(run: Run, event: IncidentResolved) -> Run:
    incident = run.incidents[event.number]
    others = {n: other for n, other in run.incidents.items() if n != event.number}

    def change(before: Progress) -> Progress:
        if event.resolution is not Resolution.RETRY:
            return before
        # The policy's attempts count anew, and only a rejection makes the command a new one.
        return changed(
            before,
            status=StepStatus.PENDING,
            spent=before.attempts,
            round=before.round + before.rejected,
            payload=None if before.rejected else before.payload,
        )

    return _progressed(run, incident.step, incident.direction, change, incidents=others)
