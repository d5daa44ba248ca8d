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
    FollowUpEvent,
    IncidentOpened,
    IncidentResolved,
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
    StopSuperseded,
)
from saga_engine.decider.run import Incident, Progress, Run, StepRun, StepStatus
from saga_engine.payload.serialization import replace_fields
from saga_engine.vocabulary import Direction, Resolution, Status

ProgressChange: TypeAlias = Callable[[Progress], Progress]

RUN_TRANSITIONS: Mapping[Status, frozenset[Status]] = {
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
        return _run_started(event)
    assert run is not None, "a run starts with run_started"
    return _apply_event(run, event)


def replay(events: Iterable[Event]) -> Run | None:
    """Fold a journal; None when it is empty."""
    run: Run | None = None
    for event in events:
        run = evolve(run, event)
    return run


def _run_started(event: RunStarted) -> Run:
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


def _apply_event(run: Run, event: FollowUpEvent) -> Run:  # noqa: C901, PLR0911, PLR0912 - one arm an event
    match event:
        case AttemptStarted():
            return _with_progress(run, event.step, event.direction, _attempt_started(event))
        case AttemptFailed():
            return _with_progress(run, event.step, event.direction, _attempt_failed(event))
        case StepSucceeded() | StepCompleted():
            return _with_progress(run, event.step, event.direction, _step_succeeded(event))
        case StepRejected():
            return _with_progress(run, event.step, event.direction, _step_rejected(event))
        case StepGivenUp():
            final = StepStatus(event.outcome)
            return _with_progress(run, event.step, Direction.ACTION, _step_finished(final))
        case StepSkipped():
            return _with_progress(
                run, event.step, event.direction, _step_finished(StepStatus.SKIPPED)
            )
        case IncidentOpened():
            return _incident_opened(run, event)
        case IncidentResolved():
            return _incident_resolved(run, event)
        case RunStopping():
            return _updated(run, stopping_cause=event.cause)
        case StopSuperseded():
            return _updated(run, stopping_cause=None)
        case RunCompensating():
            return _transition(
                run,
                Status.COMPENSATING,
                stopping_cause=None,
                compensation_cause=event.cause,
                finished_at=None,
            )
        case RunCompleted():
            return _transition(
                run, Status.COMPLETED, result=event.result, finished_at=event.finished_at
            )
        case RunCompensated():
            return _transition(run, Status.COMPENSATED, finished_at=event.finished_at)
        case _:  # RunAbandoned; an event that is added does not pass the type checker here
            return _run_abandoned(run, event)


def _run_abandoned(run: Run, event: RunAbandoned) -> Run:
    return _transition(run, Status.ABANDONED, stopping_cause=None, finished_at=event.finished_at)


def _transition(run: Run, status: Status, **values: Any) -> Run:
    assert status in RUN_TRANSITIONS[run.status], f"{run.status} cannot become {status}"
    return _updated(run, status=status, **values)


def _updated(run: Run, **values: Any) -> Run:
    """Give the run these values; one copy for each event."""
    return replace_fields(run, revision=run.revision + 1, **values)


def _with_progress(
    run: Run, step: str, direction: Direction, change: ProgressChange, **values: Any
) -> Run:
    step_run = run.steps[step]
    new_progress = change(step_run.progress_of(direction))
    name = "action" if direction is Direction.ACTION else "compensation"
    new_step_run = replace_fields(step_run, **{name: new_progress})
    return _updated(run, steps={**run.steps, step: new_step_run}, **values)


def _attempt_started(event: AttemptStarted) -> ProgressChange:
    def change(progress: Progress) -> Progress:
        return replace_fields(
            progress,
            status=StepStatus.IN_FLIGHT,
            attempts=event.attempt,
            round=event.round,
            sent_at=event.sent_at,
            due_at=event.due_at,
            payload=progress.payload if event.payload is None else event.payload,
            rejected=False,
        )

    return change


def _attempt_failed(event: AttemptFailed) -> ProgressChange:
    final_status = StepStatus(event.outcome)

    def change(progress: Progress) -> Progress:
        return replace_fields(
            progress,
            status=final_status if event.retry_at is None else StepStatus.AWAITING_RETRY,
            due_at=event.retry_at,
            failure=event.failure,
            unroutable_attempts=progress.unroutable_attempts + event.unroutable,
        )

    return change


def _step_succeeded(event: StepSucceeded | StepCompleted) -> ProgressChange:
    def change(progress: Progress) -> Progress:
        return replace_fields(
            progress,
            status=StepStatus.SUCCEEDED,
            due_at=None,
            payload=None,
            reply=event.reply,
            failure=None,
            rejected=False,
        )

    return change


def _step_rejected(event: StepRejected) -> ProgressChange:
    def change(progress: Progress) -> Progress:
        return replace_fields(
            progress,
            status=StepStatus.REJECTED,
            due_at=None,
            payload=None,
            failure=event.failure,
            rejected=True,
        )

    return change


def _step_finished(final_status: StepStatus) -> ProgressChange:
    def change(progress: Progress) -> Progress:
        return replace_fields(progress, status=final_status, due_at=None, payload=None)

    return change


def _incident_opened(run: Run, event: IncidentOpened) -> Run:
    incident = Incident(
        *(event.number, event.step, event.direction, event.cause, event.message, event.opened_at),
        event.kept_reply,
    )

    def change(progress: Progress) -> Progress:
        return replace_fields(progress, status=StepStatus.BLOCKED, due_at=None)

    return _with_progress(
        *(run, event.step, event.direction, change),
        incidents={**run.incidents, event.number: incident},
        incident_count=run.incident_count + 1,
    )


def _incident_resolved(run: Run, event: IncidentResolved) -> Run:
    incident = run.incidents[event.number]
    others = {n: other for n, other in run.incidents.items() if n != event.number}

    def change(progress: Progress) -> Progress:
        if event.resolution is not Resolution.RETRY:
            return progress
        # The policy's attempts count anew, and only a rejection makes the command a new one.
        return replace_fields(
            progress,
            status=StepStatus.PENDING,
            attempts_before_retry=progress.attempts,
            round=progress.round + progress.rejected,
            payload=None if progress.rejected else progress.payload,
        )

    return _with_progress(run, incident.step, incident.direction, change, incidents=others)
