"""
What a reply or a returned command means for a run.

Replies are decoded in worker/decode.py, which dead-letters those that cannot be decoded. If such a
reply has a valid token, its run learns of it as a MalformedReply: unless the reply is late or the
run is stopping, the step gets an incident.
"""

from typing import TypeAlias

from saga_engine.decider import events
from saga_engine.decider.decision import DecisionBuilder
from saga_engine.decider.payloads import READ_ERRORS
from saga_engine.decider.run import (
    LAST_ATTEMPT_OPEN,
    UNSETTLED,
    CompensationCause,
    Incident,
    KeptReply,
    StepStatus,
)
from saga_engine.decider.triggers import CommandUnroutable, MalformedReply, ReplyReceived
from saga_engine.payload.encryption import EncryptionError
from saga_engine.saga.definition import declared_command
from saga_engine.vocabulary import (
    CompensationCode,
    Direction,
    EngineFailureCode,
    Failure,
    IgnoredReason,
    IncidentCause,
    Json,
    Outcome,
    Status,
)

StepMessage: TypeAlias = ReplyReceived | MalformedReply | CommandUnroutable


def on_message(builder: DecisionBuilder, message: StepMessage) -> IgnoredReason | None:
    """Record what a message says of an attempt; return why that changes nothing, or None."""
    if message.step not in builder.run.steps:
        return IgnoredReason.UNCORRELATED
    progress = builder.progress(message.step, message.direction)
    if not 1 <= message.attempt <= progress.attempts:
        return IgnoredReason.UNCORRELATED
    if isinstance(message, ReplyReceived) and message.outcome is Outcome.SUCCEEDED:
        return _on_success(builder, message)
    # A success counts for any attempt, anything else for the last one.
    is_last = message.attempt == progress.attempts
    is_news = is_last and _says_something_new(message, progress.status)
    if not is_news or builder.run.status is Status.ABANDONED:
        return IgnoredReason.LATE
    match message:
        case ReplyReceived():
            _on_rejection_or_failure(builder, message)
        case MalformedReply():
            _on_malformed_reply(builder, message)
        case _:  # CommandUnroutable
            _on_unroutable(builder, message)
    return None


def _says_something_new(message: StepMessage, status: StepStatus) -> bool:
    match message:
        case MalformedReply() | ReplyReceived(outcome=Outcome.REJECTED):
            return status in LAST_ATTEMPT_OPEN
        case _:  # a failure; it says nothing new while the next attempt is planned
            return status is StepStatus.IN_FLIGHT


def _on_success(builder: DecisionBuilder, reply: ReplyReceived) -> IgnoredReason | None:
    """A success counts for any attempt: it proves that the command was done."""
    status = builder.progress(reply.step, reply.direction).status
    if status is StepStatus.SUCCEEDED:
        return IgnoredReason.DUPLICATE
    if status in UNSETTLED:
        return _on_success_in_time(builder, reply)
    if not _is_uncovered_effect(builder, reply.step, reply.direction):
        return IgnoredReason.LATE
    _on_uncovered_success(builder, reply)
    return None


def _on_success_in_time(builder: DecisionBuilder, reply: ReplyReceived) -> IgnoredReason | None:
    """Settle the step, or open an incident if the body of the reply does not fit."""
    step, direction, body = reply.step, reply.direction, reply.body
    problem = _body_problem(builder, reply)
    if problem is None:
        builder.close_obsolete_incident(step, direction, "its reply arrived")
        _record_success(builder, reply, body)
    elif builder.progress(step, direction).status is StepStatus.BLOCKED:
        return IgnoredReason.DUPLICATE  # its incident is open, or the run was abandoned
    elif builder.pending_stop_cause is None and not builder.run.status.is_finished:
        kept_reply = KeptReply(reply.attempt, body, reply.outcome)
        builder.open_incident(step, direction, IncidentCause.REPLY_INVALID, problem, kept_reply)
    else:  # the run stops or was abandoned: no later step needs the value
        _record_success(builder, reply, None)
    return None


def _on_uncovered_success(builder: DecisionBuilder, reply: ReplyReceived) -> None:
    """The step had ended without a success, but was done: `advance` compensates it."""
    fits = _body_problem(builder, reply) is None
    _record_success(builder, reply, reply.body if fits else None, late=True)
    if builder.run.status is Status.COMPENSATED:  # finished, so that `advance` begins nothing
        cause = CompensationCause(code=CompensationCode.LATE_SUCCESS, step=reply.step)
        builder.record(events.RunCompensating(cause))


def _record_success(
    builder: DecisionBuilder, reply: ReplyReceived, body: Json, *, late: bool = False
) -> None:
    success = events.StepSucceeded(
        step=reply.step, direction=reply.direction, attempt=reply.attempt, reply=body, late=late
    )
    builder.record(success)


def _is_uncovered_effect(builder: DecisionBuilder, step: str, direction: Direction) -> bool:
    """Whether a late success proves an effect that no compensation sent so far covers."""
    state = builder.state(step)
    return (
        direction is Direction.ACTION
        and state.action.status is not StepStatus.SKIPPED
        and state.compensation.status is StepStatus.PENDING
        and not builder.saga.steps[step].read_only
    )


def _on_rejection_or_failure(builder: DecisionBuilder, reply: ReplyReceived) -> None:
    step, direction, outcome = reply.step, reply.direction, reply.outcome
    failure = reply.failure or Failure.by_engine(EngineFailureCode(outcome))
    if outcome is Outcome.REJECTED:
        builder.record(events.StepRejected(step, direction, reply.attempt, failure))
        builder.compensate_or_block(step, direction, outcome, failure)
    else:
        builder.fail_attempt(step, direction, outcome, failure)


def _on_malformed_reply(builder: DecisionBuilder, reply: MalformedReply) -> None:
    """Open an incident; or end the attempt, if the run stops."""
    step, direction, problem = reply.step, reply.direction, reply.problem
    if builder.pending_stop_cause is not None and direction is Direction.ACTION:
        failure = Failure.by_engine(EngineFailureCode.REPLY_UNREADABLE, problem)
        builder.fail_attempt(step, direction, Outcome.UNKNOWN, failure)
    else:
        kept_reply = KeptReply(reply.attempt, reply.raw_text, reply.outcome, unreadable=True)
        builder.open_incident(step, direction, IncidentCause.REPLY_UNREADABLE, problem, kept_reply)


def _on_unroutable(builder: DecisionBuilder, command: CommandUnroutable) -> None:
    step, direction, first_send = command.step, command.direction, command.first_send
    name = declared_command(builder.saga, step, direction).command
    text = f"No queue is bound to saga.commands for {name}."
    failure = Failure.by_engine(EngineFailureCode.UNROUTABLE, text)
    builder.fail_attempt(step, direction, Outcome.FAILED, failure, never_delivered=first_send)


def accept_kept_reply(builder: DecisionBuilder, incident: Incident) -> None:
    """Settle the step with the reply that opened its incident, if that fits the definition now."""
    kept = incident.kept_reply
    if kept is None or kept.unreadable:
        return
    assert kept.outcome is Outcome.SUCCEEDED, "only a success has a body that must fit"
    step, direction = incident.step, incident.direction
    reply = ReplyReceived(
        step=step, direction=direction, attempt=kept.attempt, outcome=kept.outcome, body=kept.body
    )
    if _body_problem(builder, reply) is None:
        _record_success(builder, reply, reply.body)


def _body_problem(builder: DecisionBuilder, reply: ReplyReceived) -> str | None:
    """Why the body of a success does not fit its type; None if it does."""
    run_id, payloads = builder.run.run_id, builder.payloads
    try:
        payloads.check_reply(run_id, reply.step, reply.direction, reply.body)
    except EncryptionError:
        return None  # the step that needs the value is blocked until the key is there
    except READ_ERRORS as error:
        return payloads.problem_text("The reply", error)
    return None
