"""Emits the telemetry events of a committed batch: what is logged and counted."""

from collections.abc import Iterator

from saga_engine.decider import events
from saga_engine.decider.run import StepStatus
from saga_engine.payload.guard import UserCodeError
from saga_engine.protocol.token import redact_token
from saga_engine.telemetry.events import (
    AttemptFinished,
    AttemptSent,
    Emitter,
    InternalErrorCaught,
    MessageDeadLettered,
    MessageHeld,
    MessageIgnored,
    OperatorActionProcessed,
    RetryScheduled,
    RunFinished,
    TelemetryEvent,
    UserCodeFailed,
    describe_error,
    run_events,
)
from saga_engine.telemetry.operations import Operation
from saga_engine.vocabulary import (
    Direction,
    IgnoredReason,
    Outcome,
)
from saga_engine.worker.change_set import AppliedDecision, ChangeSet
from saga_engine.worker.work_item import WorkItem


def emit_committed(emit: Emitter, changes: ChangeSet) -> None:
    """Emit everything that a committed batch did."""
    after_commit = changes.after_commit
    for decision in after_commit.decisions:
        for event in decision.events:
            for telemetry_event in _telemetry_events(decision, event, changes):
                emit(telemetry_event)
    for work_item, reason in after_commit.ignored:
        emit(_message_ignored(work_item, reason, changes))
    for dead_letter in after_commit.dead_letters:
        emit(
            MessageDeadLettered(
                queue=dead_letter.delivery.queue,
                reason=dead_letter.reason,
                problem=dead_letter.detail,
                run_id=dead_letter.run_id or "",
                message_id=dead_letter.delivery.message_id,
                correlation_id=redact_token(dead_letter.delivery.correlation_id),
            )
        )
    for work_item in after_commit.awaiting_definition:
        emit(_message_held(work_item, changes))
    _emit_problems(emit, changes)
    for operator_answer in changes.operator_answers:
        emit(
            OperatorActionProcessed(
                action=operator_answer.action,
                accepted=operator_answer.accepted,
                run_id=operator_answer.run_id,
            )
        )


def _emit_problems(emit: Emitter, changes: ChangeSet) -> None:
    for failure in changes.after_commit.code_errors:
        emit(_user_code_failed(failure))
    for run_id, error in changes.after_commit.internal_errors:
        emit(
            InternalErrorCaught(
                operation=Operation.DECIDE, problem=describe_error(error), run_id=run_id
            )
        )


def _telemetry_events(  # noqa: C901 - one arm an event
    decision: AppliedDecision, event: events.Event, changes: ChangeSet
) -> Iterator[TelemetryEvent]:
    run = decision.after
    run_labels = {"saga": run.saga, "run_id": run.run_id}
    match event:
        case events.RunStarted():
            yield run_events.RunStarted(version=run.version, **run_labels)
        case events.AttemptStarted():
            yield AttemptSent(
                step=event.step, direction=event.direction, attempt=event.attempt, **run_labels
            )
        case events.StepSucceeded() if event.attempt:
            yield _attempt_finished(decision, changes, event, Outcome.SUCCEEDED)
        case events.StepRejected() if event.attempt:  # without an attempt, an operator rejected it
            yield _attempt_finished(decision, changes, event, Outcome.REJECTED)
        case events.AttemptFailed():
            yield _attempt_finished(decision, changes, event, event.outcome)
            if event.retry_at is not None:
                yield RetryScheduled(
                    step=event.step,
                    direction=event.direction,
                    attempt=event.attempt,
                    delay_s=(event.retry_at - changes.now).total_seconds(),
                    **run_labels,
                )
        case events.RunCompensating():
            cause = event.cause
            yield run_events.RunCompensating(
                version=run.version, cause=cause.code, step=cause.step, **run_labels
            )
        case events.IncidentOpened():
            yield run_events.IncidentOpened(
                step=event.step,
                direction=event.direction,
                cause=event.cause,
                **run_labels,
            )
        case events.IncidentResolved():
            yield _incident_resolved(decision, event)
        case events.RunCompleted() | events.RunCompensated() | events.RunAbandoned():
            yield RunFinished(
                version=run.version,
                status=run.status,
                duration_s=(event.finished_at - run.started_at).total_seconds(),
                **run_labels,
            )
        case _:
            pass  # the other events are details of these; the journal has them


def _attempt_finished(
    decision: AppliedDecision,
    changes: ChangeSet,
    event: events.StepSucceeded | events.StepRejected | events.AttemptFailed,
    outcome: Outcome,
) -> AttemptFinished:
    work_item = decision.work_item
    return AttemptFinished(
        saga=decision.after.saga,
        step=event.step,
        direction=event.direction,
        attempt=event.attempt,
        run_id=decision.after.run_id,
        outcome=outcome,
        duration_s=_attempt_duration(decision, changes, event.step, event.direction),
        message_id=work_item.message_id if work_item else "",
        correlation_id=work_item.correlation_id if work_item else "",
    )


def _user_code_failed(error: UserCodeError) -> UserCodeFailed:
    call = error.call
    return UserCodeFailed(
        saga=call.saga,
        run_id=call.run_id,
        step=call.step,
        direction=call.direction,
        command=call.command,
        function=call.function,
        problem=error.text,
    )


def _attempt_duration(
    decision: AppliedDecision, changes: ChangeSet, step: str, direction: Direction
) -> float | None:
    """Seconds since the attempt in flight was decision."""
    if decision.before is None:
        return None
    progress = decision.before.steps[step].progress_of(direction)
    if progress.status is not StepStatus.IN_FLIGHT or progress.sent_at is None:
        return None
    return max(0.0, (changes.now - progress.sent_at).total_seconds())


def _incident_resolved(
    decision: AppliedDecision, event: events.IncidentResolved
) -> run_events.IncidentResolved:
    run = decision.before or decision.after
    incident = run.incidents.get(event.number)
    return run_events.IncidentResolved(
        saga=run.saga,
        step=incident.step if incident else "",
        direction=incident.direction if incident else Direction.ACTION,
        run_id=run.run_id,
        resolution=event.resolution,
    )


def _message_ignored(
    work_item: WorkItem, reason: IgnoredReason, changes: ChangeSet
) -> MessageIgnored:
    stored = changes.runs.get(work_item.run_id)
    return MessageIgnored(
        reason=reason,
        saga=stored.run.saga if stored else "",
        run_id=work_item.run_id,
        message_id=work_item.message_id,
        correlation_id=work_item.correlation_id,
    )


def _message_held(work_item: WorkItem, changes: ChangeSet) -> MessageHeld:
    stored = changes.runs.get(work_item.run_id)
    return MessageHeld(
        saga=stored.run.saga if stored else work_item.saga,
        version=stored.run.version if stored else work_item.version,
        run_id=work_item.run_id,
        message_id=work_item.message_id,
    )
