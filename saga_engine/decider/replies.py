"""
What a reply or a returned command means for a run.

Replies are decoded in worker/decode.py. One that cannot be decoded becomes a dead letter; if it has
a valid correlation id, the run gets a MalformedReply as well.
"""

from typing import TypeAlias

from saga_engine.decider.decision import DecisionBuilder
from saga_engine.decider.run import CompensationCause, KeptReply, StepStatus
from saga_engine.decider.step_in_direction import StepInDirection
from saga_engine.decider.triggers import CommandUnroutable, MalformedReply, ReplyReceived
from saga_engine.payload.encryption import EncryptionError
from saga_engine.payload.reader import READ_ERRORS
from saga_engine.vocabulary import (
    CompensationCode,
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
    """
    Record what a message says of an attempt; return why that changes nothing, or None.

    A success may count for any attempt, because it proves that the command was done. Another
    message counts for the last attempt only.
    """
    if message.step not in builder.run.steps:
        return IgnoredReason.UNCORRELATED
    step = StepInDirection(builder, message.step, message.direction)
    attempts = step.progress.attempts
    if not 1 <= message.attempt <= attempts:
        return IgnoredReason.UNCORRELATED
    if isinstance(message, ReplyReceived) and message.outcome is Outcome.SUCCEEDED:
        return _on_success(step, message)
    if message.attempt != attempts or builder.run.status is Status.ABANDONED:
        return IgnoredReason.LATE
    return _on_other_message(step, message)


def _on_other_message(step: StepInDirection, message: StepMessage) -> IgnoredReason | None:
    """
    Record a message of the last attempt that is not a success.

        a rejection, an unreadable reply      counts in flight and while a retry is awaited
        a failure, a command without a queue  counts in flight: later it says nothing new
    """
    status = step.progress.status
    in_flight = status is StepStatus.IN_FLIGHT
    awaited = in_flight or status is StepStatus.AWAITING_RETRY
    match message:
        case ReplyReceived(outcome=Outcome.REJECTED) if awaited:
            failure = message.failure or Failure.by_engine(EngineFailureCode.REJECTED)
            step.reject(message.attempt, failure)
        case MalformedReply() if awaited:
            _on_malformed_reply(step, message)
        case ReplyReceived() if in_flight:
            failure = message.failure or Failure.by_engine(EngineFailureCode(message.outcome))
            step.fail_attempt(message.outcome, failure)
        case CommandUnroutable(never_delivered=never_delivered) if in_flight:
            text = f"No queue is bound to saga.commands for {step.spec.command}."
            failure = Failure.by_engine(EngineFailureCode.UNROUTABLE, text)
            step.fail_attempt(Outcome.FAILED, failure, never_delivered=never_delivered)
        case _:
            return IgnoredReason.LATE
    return None


def _on_malformed_reply(step: StepInDirection, reply: MalformedReply) -> None:
    """The step gets an incident; if the run is stopping, the attempt ends as unknown instead."""
    if step.builder.is_stopping:
        failure = Failure.by_engine(EngineFailureCode.REPLY_UNREADABLE, reply.problem)
        step.fail_attempt(Outcome.UNKNOWN, failure)
    else:
        kept_reply = KeptReply(reply.attempt, reply.raw_text, reply.outcome, unreadable=True)
        step.open_incident(IncidentCause.REPLY_UNREADABLE, reply.problem, kept_reply)


def _on_success(step: StepInDirection, reply: ReplyReceived) -> IgnoredReason | None:
    """
    Record a success. What it does depends on the status of the step's direction.

        in flight, awaiting retry  the step succeeds; a body that does not fit: `_succeed_awaited`
        blocked                    if the body fits, the step succeeds and its incident closes
        rejected, failed, unknown  the step succeeds late, if its effect is not covered
        succeeded, skipped         nothing
        pending                    nothing: it is a compensation that is about to be sent again
    """
    match step.progress.status:
        case StepStatus.IN_FLIGHT | StepStatus.AWAITING_RETRY:
            _succeed_awaited(step, reply)
        case StepStatus.BLOCKED if _body_problem(step, reply.body) is None:
            step.close_obsolete_incident("its reply arrived")
            step.succeed(reply.attempt, reply.body)
        case StepStatus.BLOCKED | StepStatus.SUCCEEDED:
            return IgnoredReason.DUPLICATE
        case StepStatus.REJECTED | StepStatus.FAILED | StepStatus.UNKNOWN if _is_uncovered(step):
            _succeed_late(step, reply)
        case _:
            return IgnoredReason.LATE
    return None


def _succeed_awaited(step: StepInDirection, reply: ReplyReceived) -> None:
    """The step succeeds; if its body does not fit and the run needs it, a person must look."""
    builder, body = step.builder, reply.body
    problem = _body_problem(step, body)
    if problem is None:
        step.succeed(reply.attempt, body)
    elif not builder.is_stopping and not builder.run.status.is_finished:
        kept_reply = KeptReply(reply.attempt, body, reply.outcome)
        step.open_incident(IncidentCause.REPLY_INVALID, problem, kept_reply)
    else:
        # The run is stopping or abandoned, and does not need the body: the step succeeds without
        # it. A pivot makes the run go forward: it keeps the body, and a step that reads it blocks.
        step.succeed(reply.attempt, body if step.declared.pivot else None)


def _succeed_late(step: StepInDirection, reply: ReplyReceived) -> None:
    """The step had ended, and was done nevertheless: `advance` compensates it."""
    fits = _body_problem(step, reply.body) is None
    step.succeed(reply.attempt, reply.body if fits else None, late=True)
    if step.builder.run.status is Status.COMPENSATED:  # else it stops or compensates anyway
        cause = CompensationCause(code=CompensationCode.LATE_SUCCESS, step=step.name)
        step.builder.stop(cause)


def _is_uncovered(step: StepInDirection) -> bool:
    """
    Whether a step that ended has an effect, and no compensation was sent that covers it.

    It is an action: a compensation that ends without a success is blocked.
    """
    compensation = step.builder.run.steps[step.name].compensation
    is_blocked_unsent = compensation.status is StepStatus.BLOCKED and not compensation.attempts
    is_unsent = compensation.status is StepStatus.PENDING or is_blocked_unsent
    return is_unsent and not step.declared.read_only


def accept_kept_reply(step: StepInDirection, kept: KeptReply | None) -> None:
    """Settle the step with the reply that opened its incident, if that fits the definition now."""
    if kept is None or kept.unreadable:
        return
    assert kept.outcome is Outcome.SUCCEEDED, "only a success has a body that must fit"
    if _body_problem(step, kept.body) is None:
        step.succeed(kept.attempt, kept.body)


def _body_problem(step: StepInDirection, body: Json) -> str | None:
    """Why the body of a success does not fit; None if it does, or if its key is missing."""
    payloads = step.builder.payloads
    try:
        payloads.check_reply(step.name, step.direction, body)
    except EncryptionError:
        return None  # a step that needs the value is blocked until the codec has the key
    except READ_ERRORS as error:
        return payloads.problem_text("The reply", error)
    return None
