"""
What a reply or a returned command means for a run.

Replies are decoded in worker/decode.py, which dead-letters those that cannot be decoded. If such a
reply has a valid correlation id, its run learns of it as a MalformedReply: the step gets an
incident, or the attempt ends as unknown if the run stops. A late one changes nothing.
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
    """
    Record what a message says of an attempt; return why that changes nothing, or None.

    A success may count for any attempt, because it proves that the command was done: `_on_success`.
    Another message counts for the last attempt only, as long as the step awaits it.
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
    Record what a message of the last attempt says that is not a success.

        a rejection, an unreadable reply      count in flight and while a retry is awaited
        a failure, a command without a queue  count in flight: later they say nothing new
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
    if step.builder.is_stopping:
        failure = Failure.by_engine(EngineFailureCode.REPLY_UNREADABLE, reply.problem)
        step.fail_attempt(Outcome.UNKNOWN, failure)
    else:
        kept_reply = KeptReply(reply.attempt, reply.raw_text, reply.outcome, unreadable=True)
        step.open_incident(IncidentCause.REPLY_UNREADABLE, reply.problem, kept_reply)


def _on_success(step: StepInDirection, reply: ReplyReceived) -> IgnoredReason | None:
    """
    Record a success. What it does follows from the status of the step.

        succeeded                  nothing: it is a duplicate
        in flight, awaiting retry  the step succeeds
        blocked                    the step succeeds and its incident closes, if the body fits
        skipped                    nothing: an operator went on without the step
        rejected, failed, unknown  the step succeeds late, if no compensation covers its effect
        pending, after a retry     nothing: only a retried compensation stays pending
    """
    match step.progress.status:
        case StepStatus.SUCCEEDED:
            return IgnoredReason.DUPLICATE
        case StepStatus.IN_FLIGHT | StepStatus.AWAITING_RETRY:
            _succeed_awaited(step, reply)
            return None
        case StepStatus.BLOCKED:
            return _succeed_blocked(step, reply)
        case StepStatus.SKIPPED:
            return IgnoredReason.LATE
        case _:
            return _succeed_late(step, reply)


def _succeed_awaited(step: StepInDirection, reply: ReplyReceived) -> None:
    """The step succeeds; if the run needs its value and that does not fit, a person must look."""
    builder, body = step.builder, reply.body
    problem = _body_problem(step, body)
    if problem is None:
        step.succeed(reply.attempt, body)
    elif not builder.is_stopping and not builder.run.status.is_finished:
        kept_reply = KeptReply(reply.attempt, body, reply.outcome)
        step.open_incident(IncidentCause.REPLY_INVALID, problem, kept_reply)
    else:
        # The step is compensated, or the run was abandoned: its value is not needed. That of the
        # pivot is, because the run goes forward then: the mapping that reads it gets an incident.
        step.succeed(reply.attempt, body if step.declared.pivot else None)


def _succeed_blocked(step: StepInDirection, reply: ReplyReceived) -> IgnoredReason | None:
    if _body_problem(step, reply.body) is not None:
        return IgnoredReason.DUPLICATE  # one reply that does not fit has opened the incident
    step.close_obsolete_incident("its reply arrived")
    step.succeed(reply.attempt, reply.body)
    return None


def _succeed_late(step: StepInDirection, reply: ReplyReceived) -> IgnoredReason | None:
    """The step had ended: unless the run was abandoned, its late effect has to be compensated."""
    if not _is_uncovered_effect(step):
        return IgnoredReason.LATE
    fits = _body_problem(step, reply.body) is None
    step.succeed(reply.attempt, reply.body if fits else None, late=True)
    if step.builder.run.status is Status.COMPENSATED:  # while it compensates, `advance` finds it
        cause = CompensationCause(code=CompensationCode.LATE_SUCCESS, step=step.name)
        step.builder.stop(cause)
    return None


def _is_uncovered_effect(step: StepInDirection) -> bool:
    """Whether the step has changed something, and no compensation was sent that covers it."""
    compensation = step.builder.run.steps[step.name].compensation
    return (
        step.direction is Direction.ACTION
        and compensation.status is StepStatus.PENDING
        and not step.declared.read_only
    )


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
