"""
What a reply or a returned command means for a run.

Replies are decoded in worker/decode.py, which dead-letters those that cannot be decoded. If such a
reply has a valid correlation id, its run learns of it as a MalformedReply: the step gets an
incident, or the attempt ends as unknown if the run stops. A late one changes nothing.
"""

from typing import TypeAlias

from saga_engine.decider import events
from saga_engine.decider.decision import DecisionBuilder
from saga_engine.decider.run import CompensationCause, Incident, KeptReply, StepStatus
from saga_engine.decider.triggers import CommandUnroutable, MalformedReply, ReplyReceived
from saga_engine.payload.encryption import EncryptionError
from saga_engine.payload.reader import READ_ERRORS
from saga_engine.saga.definition import declared_spec
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

_UNDECIDED = (StepStatus.IN_FLIGHT, StepStatus.AWAITING_RETRY, StepStatus.BLOCKED)
"""A success settles these: it is awaited, or an incident waits for it."""


def on_message(builder: DecisionBuilder, message: StepMessage) -> IgnoredReason | None:
    """Record what a message says of an attempt; return why that changes nothing, or None."""
    if message.step not in builder.run.steps:
        return IgnoredReason.UNCORRELATED
    progress = builder.progress(message.step, message.direction)
    if not 1 <= message.attempt <= progress.attempts:
        return IgnoredReason.UNCORRELATED
    if isinstance(message, ReplyReceived) and message.outcome is Outcome.SUCCEEDED:
        return _on_success(builder, message)
    if message.attempt != progress.attempts or builder.run.status is Status.ABANDONED:
        return IgnoredReason.LATE
    return _on_other_message(builder, message, progress.status)


def _on_other_message(
    builder: DecisionBuilder, message: StepMessage, status: StepStatus
) -> IgnoredReason | None:
    """
    The message is of the last attempt, and no success.

    A failure counts in flight only: once the attempt has failed, another failure says nothing new.
    """
    in_flight = status is StepStatus.IN_FLIGHT
    awaited = in_flight or status is StepStatus.AWAITING_RETRY
    match message:
        case ReplyReceived(outcome=Outcome.REJECTED) if awaited:
            _on_rejection(builder, message)
        case MalformedReply() if awaited:
            _on_malformed_reply(builder, message)
        case ReplyReceived() if in_flight:
            _on_failure(builder, message)
        case CommandUnroutable() if in_flight:
            _on_unroutable(builder, message)
        case _:
            return IgnoredReason.LATE
    return None


def _on_success(builder: DecisionBuilder, reply: ReplyReceived) -> IgnoredReason | None:
    """A success counts for any attempt: it proves that the command was done."""
    status = builder.progress(reply.step, reply.direction).status
    if status is StepStatus.SUCCEEDED:
        return IgnoredReason.DUPLICATE
    if status in _UNDECIDED:
        return _on_awaited_success(builder, reply, blocked=status is StepStatus.BLOCKED)
    return _on_late_success(builder, reply)


def _on_awaited_success(
    builder: DecisionBuilder, reply: ReplyReceived, *, blocked: bool
) -> IgnoredReason | None:
    """Settle the step, or open an incident if the body of the reply does not fit."""
    step, direction, body = reply.step, reply.direction, reply.body
    problem = _body_problem(builder, reply)
    if problem is None:
        if blocked:
            builder.close_obsolete_incident(step, direction, "its reply arrived")
        _record_success(builder, reply, body)
    elif blocked:
        return IgnoredReason.DUPLICATE  # its incident is open, or the run was abandoned
    elif builder.pending_stop is not None or builder.run.status.is_finished:
        # The step is compensated, or the run was abandoned: its value is not needed. That of the
        # pivot is, because the run goes forward then: the mapping that reads it gets an incident.
        _record_success(builder, reply, body if builder.saga.steps[step].pivot else None)
    else:
        kept_reply = KeptReply(reply.attempt, body, reply.outcome)
        builder.open_incident(step, direction, IncidentCause.REPLY_INVALID, problem, kept_reply)
    return None


def _on_late_success(builder: DecisionBuilder, reply: ReplyReceived) -> IgnoredReason | None:
    """It counts if it proves an effect that no compensation sent so far covers."""
    if not _is_uncovered_effect(builder, reply.step, reply.direction):
        return IgnoredReason.LATE
    fits = _body_problem(builder, reply) is None
    _record_success(builder, reply, reply.body if fits else None, late=True)
    if builder.run.status is Status.COMPENSATED:
        code = CompensationCode.LATE_SUCCESS
        builder.pending_stop = CompensationCause(code=code, step=reply.step)
    return None


def _record_success(
    builder: DecisionBuilder, reply: ReplyReceived, body: Json, *, late: bool = False
) -> None:
    success = events.StepSucceeded(
        step=reply.step, direction=reply.direction, attempt=reply.attempt, reply=body, late=late
    )
    builder.record(success)


def _is_uncovered_effect(builder: DecisionBuilder, step: str, direction: Direction) -> bool:
    """Whether no compensation was sent that covers the effect of a late success."""
    state = builder.state(step)
    return (
        direction is Direction.ACTION
        and state.action.status is not StepStatus.SKIPPED
        and state.compensation.status is StepStatus.PENDING
        and not builder.saga.steps[step].read_only
    )


def _on_rejection(builder: DecisionBuilder, reply: ReplyReceived) -> None:
    step, direction = reply.step, reply.direction
    failure = reply.failure or Failure.by_engine(EngineFailureCode.REJECTED)
    builder.record(events.StepRejected(step, direction, reply.attempt, failure))
    builder.stop_or_block(step, direction, Outcome.REJECTED, failure)


def _on_failure(builder: DecisionBuilder, reply: ReplyReceived) -> None:
    failure = reply.failure or Failure.by_engine(EngineFailureCode(reply.outcome))
    builder.fail_attempt(reply.step, reply.direction, reply.outcome, failure)


def _on_malformed_reply(builder: DecisionBuilder, reply: MalformedReply) -> None:
    """Open an incident; or end the attempt, if the run stops."""
    step, direction, problem = reply.step, reply.direction, reply.problem
    if builder.pending_stop is not None:
        assert direction is Direction.ACTION, "a run stops before it compensates"
        failure = Failure.by_engine(EngineFailureCode.REPLY_UNREADABLE, problem)
        builder.fail_attempt(step, direction, Outcome.UNKNOWN, failure)
    else:
        kept_reply = KeptReply(reply.attempt, reply.raw_text, reply.outcome, unreadable=True)
        builder.open_incident(step, direction, IncidentCause.REPLY_UNREADABLE, problem, kept_reply)


def _on_unroutable(builder: DecisionBuilder, command: CommandUnroutable) -> None:
    step, direction = command.step, command.direction
    name = declared_spec(builder.saga, step, direction).command
    text = f"No queue is bound to saga.commands for {name}."
    failure = Failure.by_engine(EngineFailureCode.UNROUTABLE, text)
    builder.fail_attempt(
        step, direction, Outcome.FAILED, failure, never_delivered=command.never_delivered
    )


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
    """Why the body of a success does not fit; None if it does, or if its key is missing."""
    payloads = builder.payloads
    try:
        payloads.check_reply(reply.step, reply.direction, reply.body)
    except EncryptionError:
        return None  # a step that needs the value is blocked until the codec has the key
    except READ_ERRORS as error:
        return payloads.problem_text("The reply", error)
    return None
