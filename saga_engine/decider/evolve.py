"""
evolve(run, event) -> run: the only place where a run changes.

Each arm applies what one event says; folding a journal gives the run (promise P5). The tables of
`transitions` are asserted here.
"""

from collections.abc import Iterable
from typing import Any

from saga_engine.decider import events
from saga_engine.decider.run import Incident, Run, StepState, StepStatus
from saga_engine.decider.transitions import RUN_TRANSITIONS, STEP_TRANSITIONS
from saga_engine.payload.serialization import replace_fields  # dataclasses.replace, but faster
from saga_engine.vocabulary import Direction, Resolution, Status


def evolve(run: Run | None, event: events.Event) -> Run:
    """
    Apply one event. The first event of a run, and only the first, is a RunStarted on None.

    An AssertionError is a bug in `decide`, or a journal that this engine did not write.
    """
    if isinstance(event, events.RunStarted):
        assert run is None, "a run starts once"
        return _started(event)
    assert run is not None, "a run starts with run_started"
    return replace_fields(run, **_changes(run, event))


def replay(journal: Iterable[events.Event]) -> Run | None:
    """Fold a journal; None when it is empty."""
    run: Run | None = None
    for event in journal:
        run = evolve(run, event)
    return run


def _started(event: events.RunStarted) -> Run:
    return Run(
        run_id=event.run_id,
        saga=event.saga,
        version=event.version,
        fingerprint=event.fingerprint,
        key=event.key,
        input=event.input,
        started_at=event.started_at,
        deadline=event.deadline,
        steps={name: StepState() for name in event.steps},
    )


def _changes(run: Run, event: events.FollowUpEvent) -> dict[str, Any]:  # noqa: C901, PLR0911, PLR0912 - one arm an event
    """The fields of the run that the event changes."""
    match event:
        case events.AttemptStarted():
            return _attempt_started(run, event)
        case events.AttemptFailed():
            return _attempt_failed(run, event)
        case events.StepSucceeded() | events.StepCompleted():
            done: dict[str, Any] = {"reply": event.reply, "failure": None, "rejected": False}
            return _settle(run, event.step, event.direction, StepStatus.SUCCEEDED, **done)
        case events.StepRejected(step, direction, _, failure):
            rejected = {"failure": failure, "rejected": True}
            return _settle(run, step, direction, StepStatus.REJECTED, **rejected)
        case events.StepSkipped(step, direction):
            return _settle(run, step, direction, StepStatus.SKIPPED)
        case events.StepGivenUp(step, outcome):
            return _settle(run, step, Direction.ACTION, StepStatus(outcome))
        case events.IncidentOpened():
            return _incident_opened(run, event)
        case events.IncidentResolved():
            return _incident_resolved(run, event)
        case events.RunStopping(cause):
            return {"stop_cause": cause}
        case events.StopSuperseded():
            return {"stop_cause": None}
        case events.RunCompensating(cause):
            causes = {"stop_cause": None, "compensation_cause": cause}
            return _change_status(run, Status.COMPENSATING, finished_at=None, **causes)
        case events.RunCompleted(at, result):
            return _change_status(run, Status.COMPLETED, finished_at=at, result=result)
        case events.RunCompensated(at):
            return _change_status(run, Status.COMPENSATED, finished_at=at)
        case _:  # RunAbandoned; an event that is added does not pass the type checker here
            at = event.finished_at
            return _change_status(run, Status.ABANDONED, finished_at=at, stop_cause=None)


def _attempt_started(run: Run, event: events.AttemptStarted) -> dict[str, Any]:
    values: dict[str, Any] = {
        "attempts": event.attempt,
        "round": event.round,
        "sent_at": event.sent_at,
        "due_at": event.due_at,
        "rejected": False,
    }
    if event.payload is not None:
        values["payload"] = event.payload
    return _change_step(run, event.step, event.direction, StepStatus.IN_FLIGHT, **values)


def _attempt_failed(run: Run, event: events.AttemptFailed) -> dict[str, Any]:
    values: dict[str, Any] = {"due_at": event.retry_at, "failure": event.failure}
    if event.never_delivered:
        progress = run.steps[event.step].progress_of(event.direction)
        values["undelivered_attempts"] = progress.undelivered_attempts + 1
    retried = event.retry_at is not None
    status = StepStatus.AWAITING_RETRY if retried else StepStatus(event.outcome)
    return _change_step(run, event.step, event.direction, status, **values)


def _incident_opened(run: Run, event: events.IncidentOpened) -> dict[str, Any]:
    incident = Incident(
        number=event.number,
        step=event.step,
        direction=event.direction,
        cause=event.cause,
        message=event.message,
        opened_at=event.opened_at,
        kept_reply=event.kept_reply,
    )
    return {
        **_change_step(run, event.step, event.direction, StepStatus.BLOCKED, due_at=None),
        "incidents": {**run.incidents, event.number: incident},
        "incident_count": run.incident_count + 1,
    }


def _incident_resolved(run: Run, event: events.IncidentResolved) -> dict[str, Any]:
    incidents = dict(run.incidents)
    closed = incidents.pop(event.number)
    changes: dict[str, Any] = {"incidents": incidents}
    if event.resolution is Resolution.RETRY:
        changes |= _begin_budget(run, closed.step, closed.direction)
    return changes


def _begin_budget(run: Run, step: str, direction: Direction) -> dict[str, Any]:
    """An operator's retry: a new budget of attempts, and after a rejection a new round."""
    progress = run.steps[step].progress_of(direction)
    return _change_step(
        run,
        step,
        direction,
        StepStatus.PENDING,
        attempts_before_budget=progress.attempts,
        round=progress.round + 1 if progress.rejected else progress.round,
    )


def _settle(
    run: Run, step: str, direction: Direction, status: StepStatus, **values: Any
) -> dict[str, Any]:
    """This direction of the step is no longer due, and its payload is not sent again."""
    return _change_step(run, step, direction, status, due_at=None, payload=None, **values)


def _change_step(
    run: Run, step: str, direction: Direction, status: StepStatus, **values: Any
) -> dict[str, Any]:
    """The run's steps, with the status and the values of one direction of one step changed."""
    state = run.steps[step]
    progress = state.progress_of(direction)
    allowed = STEP_TRANSITIONS[direction][progress.status]
    assert status in allowed, f"{step}, {direction}: {progress.status} cannot become {status}"
    changed = state.with_progress(direction, replace_fields(progress, status=status, **values))
    return {"steps": {**run.steps, step: changed}}


def _change_status(run: Run, status: Status, **values: Any) -> dict[str, Any]:
    assert status in RUN_TRANSITIONS[run.status], f"{run.status} cannot become {status}"
    return {"status": status, **values}
