"""
What a reply means for a run: the trigger side of `decide` for everything a participant says.

Each function records events, or returns why the message changes nothing. Late, repeated and
overtaken replies are the normal case, so "changes nothing" is an answer like any other.
"""

from collections.abc import Collection
from typing import TypeAlias

from saga_engine.decider.decision import DecisionBuilder
from saga_engine.decider.events import (
    IncidentResolved,
    RunCompensating,
    StepRejected,
    StepSucceeded,
)
from saga_engine.decider.run import CompensationCause, Incident, KeptReply, Progress, StepStatus
from saga_engine.decider.triggers import CommandUnroutable, MalformedReply, ReplyReceived
from saga_engine.payload.encryption import EncryptionError, reply_associated_data
from saga_engine.payload.guard import UserCodeError
from saga_engine.payload.payload import PayloadError
from saga_engine.vocabulary import Direction, Failure, Json, Outcome, Status, StepKind

UNCORRELATED = "uncorrelated"  # no such attempt was ever made
DUPLICATE = "duplicate"  # it is known already
LATE = "late"  # something else has been decided meanwhile, and covers it
ENGINE_NAME = "saga-engine"

StepMessage: TypeAlias = ReplyReceived | MalformedReply | CommandUnroutable

AWAITING_REPLY = (StepStatus.IN_FLIGHT, StepStatus.AWAITING_RETRY)
OPEN_STATUSES = (*AWAITING_REPLY, StepStatus.BLOCKED)


def on_reply(builder: DecisionBuilder, reply: ReplyReceived) -> str | None:
    """Settle an attempt by what its participant says; None, or why it changes nothing."""
    if not _attempt_exists(builder, reply):
        return UNCORRELATED
    progress = builder.step(reply.step).progress_of(reply.direction)
    if reply.outcome is Outcome.SUCCEEDED:
        return _on_success(builder, reply, progress)
    if _is_late(builder, reply, AWAITING_REPLY):
        return LATE
    failure = reply.failure or Failure(reply.outcome.value)
    if reply.outcome is Outcome.REJECTED:
        _on_rejection(builder, reply, failure)
        return None
    if progress.status is not StepStatus.IN_FLIGHT:
        return LATE
    builder.fail_attempt(reply.step, reply.direction, Outcome.FAILED, failure)
    return None


def on_malformed_reply(builder: DecisionBuilder, reply: MalformedReply) -> str | None:
    """A reply that cannot be read: a person must find out what was done."""
    if not _attempt_exists(builder, reply):
        return UNCORRELATED
    if _is_late(builder, reply, AWAITING_REPLY):
        return LATE
    if builder.stopping and reply.direction is Direction.ACTION:
        failure = Failure("reply_unreadable", reply.problem)
        builder.fail_attempt(reply.step, reply.direction, Outcome.UNKNOWN, failure)
    else:
        kept_reply = KeptReply(reply.attempt, reply.raw_text, reply.outcome, unreadable=True)
        builder.open_incident(
            reply.step, reply.direction, "reply_unreadable", reply.problem, kept_reply
        )
    return None


def on_unroutable(builder: DecisionBuilder, command: CommandUnroutable) -> str | None:
    """The broker has no queue for the command: it is tried again, then a person must look."""
    if not _attempt_exists(builder, command):
        return UNCORRELATED
    if _is_late(builder, command, (StepStatus.IN_FLIGHT,)):
        return LATE
    name = builder.command_spec(command.step, command.direction).command
    failure = Failure("unroutable", f"No queue is bound to saga.commands for {name}.")
    builder.fail_attempt(
        command.step, command.direction, Outcome.FAILED, failure, unroutable=command
    )
    return None


def _attempt_exists(builder: DecisionBuilder, message: StepMessage) -> bool:
    step = builder.run.steps.get(message.step)
    return step is not None and 1 <= message.attempt <= step.progress_of(message.direction).attempts


def _is_late(
    builder: DecisionBuilder, message: StepMessage, expected_statuses: Collection[StepStatus]
) -> bool:
    """Whether anything but a success comes too late to say something new."""
    if builder.run.status is Status.ABANDONED:
        return True
    # An older attempt's no says nothing of the one in flight, which will speak for itself.
    progress = builder.step(message.step).progress_of(message.direction)
    return message.attempt != progress.attempts or progress.status not in expected_statuses


def _on_success(builder: DecisionBuilder, reply: ReplyReceived, progress: Progress) -> str | None:
    if progress.status in OPEN_STATUSES:
        return _accept_success(builder, reply, progress)
    if progress.status is StepStatus.SUCCEEDED:
        return DUPLICATE
    if reply.direction is Direction.COMPENSATION or progress.status is StepStatus.SKIPPED:
        return LATE
    return _on_late_success(builder, reply)


def _accept_success(
    builder: DecisionBuilder, reply: ReplyReceived, progress: Progress
) -> str | None:
    body = reply.body
    problem = _reply_problem(builder, reply)
    if problem is not None:
        if progress.status is StepStatus.BLOCKED:
            return DUPLICATE
        if not builder.stopping and not builder.run.status.is_finished:
            kept_reply = KeptReply(reply.attempt, reply.body, reply.outcome)
            builder.open_incident(reply.step, reply.direction, "reply_invalid", problem, kept_reply)
            return None
        body = None  # nothing will read it: that the step was done is all that matters
    incident = builder.find_incident(reply.step, reply.direction)
    if incident is not None:
        builder.record(
            IncidentResolved(incident.number, None, ENGINE_NAME, "its reply arrived after all")
        )
    builder.record(StepSucceeded(reply.step, reply.direction, reply.attempt, body))
    return None


def _on_late_success(builder: DecisionBuilder, reply: ReplyReceived) -> str | None:
    """A success of a step that was rejected, or given up as failed or unknown."""
    declared = builder.saga.steps[reply.step]
    if declared.read_only:
        return LATE
    if builder.step(reply.step).compensation.status is not StepStatus.PENDING:
        return LATE  # its compensation is on its way or confirmed, and covers this effect
    body: Json = None if _reply_problem(builder, reply) else reply.body
    builder.record(StepSucceeded(reply.step, reply.direction, reply.attempt, body, late=True))
    if builder.run.status is Status.COMPENSATED:
        builder.record(RunCompensating(CompensationCause("late_success", reply.step)))
    return None


def _on_rejection(builder: DecisionBuilder, reply: ReplyReceived, failure: Failure) -> None:
    builder.record(StepRejected(reply.step, reply.direction, reply.attempt, failure))
    if reply.direction is Direction.COMPENSATION:
        builder.open_incident(reply.step, reply.direction, "compensation_rejected", failure.text)
    elif builder.saga.step_kind(reply.step) is StepKind.RETRIABLE:
        builder.open_incident(reply.step, reply.direction, "step_rejected", failure.text)
    elif not builder.stopping:
        builder.compensation_cause = CompensationCause("rejected", reply.step, failure)


def kept_reply_fits(builder: DecisionBuilder, incident: Incident) -> bool:
    """Whether the reply kept with an incident fits the definition as it is now."""
    kept_reply = incident.kept_reply
    if kept_reply is None or kept_reply.unreadable:
        return False
    assert kept_reply.outcome is Outcome.SUCCEEDED, "only a success has a body that must fit"
    reply = ReplyReceived(
        incident.step, incident.direction, kept_reply.attempt, kept_reply.outcome, kept_reply.body
    )
    return _reply_problem(builder, reply) is None


def _reply_problem(builder: DecisionBuilder, reply: ReplyReceived) -> str | None:
    associated_data = reply_associated_data(builder.run.run_id, reply.step, reply.direction)
    try:
        body = builder.encryption.decrypt(reply.body, associated_data)
        builder.decode_reply(reply.step, reply.direction, body)
    except EncryptionError:
        return None  # it is kept as it came; a step that needs it is blocked until the key is there
    except UserCodeError as error:
        return (
            f"The reply cannot be read: {error.call.function} {builder.record_code_error(error)}."
        )
    except PayloadError as error:
        return f"The reply {builder.encryption.safe_error_text(error)}."
    return None
