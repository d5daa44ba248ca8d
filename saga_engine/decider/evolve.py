"""
evolve(run, event) -> run: the only place where a run changes.

Each arm applies what one event says; only the round of an operator's retry is chosen here. Folding
a journal gives the run (promise P5). The tables of `transitions` are asserted here.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from saga_engine.decider import events
from saga_engine.decider.run import Incident, Progress, Run, StepState, StepStatus
from saga_engine.decider.transitions import RUN_TRANSITIONS, STEP_TRANSITIONS
from saga_engine.payload.serialization import replace_fields
from saga_engine.vocabulary import Direction, Resolution, Status


def evolve(run: Run | None, event: events.Event) -> Run:
    """
    Apply one event. The first event of a run, and only the first, is a RunStarted on None.

    An AssertionError is a bug in `decide`, or a journal that this engine did not write.
    """
    if isinstance(event, events.RunStarted):
        assert run is None, "a run starts once"
        return _run_started(event)
    assert run is not None, "a run starts with run_started"
    return _apply_event(run, event)


def replay(journal: Iterable[events.Event]) -> Run | None:
    """Fold a journal; None when it is empty."""
    run: Run | None = None
    for event in journal:
        run = evolve(run, event)
    return run


def _run_started(event: events.RunStarted) -> Run:
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
        steps={name: StepState() for name in event.steps},
    )


def _apply_event(run: Run, event: events.FollowUpEvent) -> Run:  # noqa: C901, PLR0911, PLR0912 - one arm an event
    match event:
        case events.AttemptStarted():
            return _attempt_started(run, event)
        case events.AttemptFailed():
            return _attempt_failed(run, event)
        case events.StepSucceeded() | events.StepCompleted():
            settled: dict[str, Any] = {"reply": event.reply, "failure": None, "rejected": False}
            return _settled(run, event.step, event.direction, StepStatus.SUCCEEDED, **settled)
        case events.StepRejected(failure=failure):
            settled = {"failure": failure, "rejected": True}
            return _settled(run, event.step, event.direction, StepStatus.REJECTED, **settled)
        case events.StepSkipped():
            return _settled(run, event.step, event.direction, StepStatus.SKIPPED)
        case events.StepGivenUp():
            return _settled(run, event.step, Direction.ACTION, StepStatus(event.outcome))
        case events.IncidentOpened():
            return _incident_opened(run, event)
        case events.IncidentResolved():
            return _incident_resolved(run, event)
        case events.RunStopping():
            return _with(run, stopping_cause=event.cause)
        case events.StopSuperseded():
            return _with(run, stopping_cause=None)
        case events.RunCompensating():
            causes = {"stopping_cause": None, "compensation_cause": event.cause}
            return _with_status(run, Status.COMPENSATING, finished_at=None, **causes)
        case events.RunCompleted(finished_at=at):
            return _with_status(run, Status.COMPLETED, finished_at=at, result=event.result)
        case events.RunCompensated(finished_at=at):
            return _with_status(run, Status.COMPENSATED, finished_at=at)
        case _:  # RunAbandoned; an event that is added does not pass the type checker here
            return _run_abandoned(run, event)


def _run_abandoned(run: Run, event: events.RunAbandoned) -> Run:
    return _with_status(run, Status.ABANDONED, finished_at=event.finished_at, stopping_cause=None)


def _attempt_started(run: Run, event: events.AttemptStarted) -> Run:
    first = {} if event.payload is None else {"payload": event.payload}
    return _with_step(
        run,
        event.step,
        event.direction,
        StepStatus.IN_FLIGHT,
        attempts=event.attempt,
        round=event.round,
        sent_at=event.sent_at,
        due_at=event.due_at,
        rejected=False,
        **first,
    )


def _attempt_failed(run: Run, event: events.AttemptFailed) -> Run:
    retried = event.retry_at is not None
    changes: dict[str, Any] = {"due_at": event.retry_at, "failure": event.failure}
    if event.unroutable:
        progress = run.steps[event.step].progress_of(event.direction)
        changes["unroutable_attempts"] = progress.unroutable_attempts + 1
    status = StepStatus.AWAITING_RETRY if retried else StepStatus(event.outcome)
    return _with_step(run, event.step, event.direction, status, **changes)


def _incident_opened(run: Run, event: events.IncidentOpened) -> Run:
    incident = Incident(
        number=event.number,
        step=event.step,
        direction=event.direction,
        cause=event.cause,
        message=event.message,
        opened_at=event.opened_at,
        kept_reply=event.kept_reply,
    )
    return _with(
        run,
        steps=_steps_with(run, event.step, event.direction, StepStatus.BLOCKED, due_at=None),
        incidents={**run.incidents, event.number: incident},
        incident_count=run.incident_count + 1,
    )


def _incident_resolved(run: Run, event: events.IncidentResolved) -> Run:
    closed = run.incidents[event.number]
    changes: dict[str, Any] = {
        "incidents": {n: each for n, each in run.incidents.items() if n != event.number}
    }
    if event.resolution is Resolution.RETRY:
        progress = run.steps[closed.step].progress_of(closed.direction)
        retry: dict[str, Any] = {"attempts_before_retry": progress.attempts}
        if progress.rejected:  # only then is it a new command, with another idempotency key
            retry |= {"round": progress.round + 1, "payload": None}
        step, direction = closed.step, closed.direction
        changes["steps"] = _steps_with(run, step, direction, StepStatus.PENDING, **retry)
    return _with(run, **changes)


def _settled(run: Run, step: str, direction: Direction, status: StepStatus, **changes: Any) -> Run:
    """Nothing of the step is due or sent any more."""
    return _with_step(run, step, direction, status, due_at=None, payload=None, **changes)


def _with_step(
    run: Run, step: str, direction: Direction, status: StepStatus, **changes: Any
) -> Run:
    return _with(run, steps=_steps_with(run, step, direction, status, **changes))


def _steps_with(
    run: Run, step: str, direction: Direction, status: StepStatus, **changes: Any
) -> Mapping[str, StepState]:
    """The run's steps, with the progress of one direction of one step changed."""
    before = run.steps[step]
    progress: Progress = before.progress_of(direction)
    allowed = STEP_TRANSITIONS[direction][progress.status]
    assert status in allowed, f"{step}, {direction}: {progress.status} cannot become {status}"
    changed = {direction.value: replace_fields(progress, status=status, **changes)}
    return {**run.steps, step: replace_fields(before, **changed)}


def _with_status(run: Run, status: Status, **changes: Any) -> Run:
    assert status in RUN_TRANSITIONS[run.status], f"{run.status} cannot become {status}"
    return _with(run, status=status, **changes)


def _with(run: Run, **changes: Any) -> Run:
    """Give the run these values; each event is one revision."""
    return replace_fields(run, revision=run.revision + 1, **changes)
