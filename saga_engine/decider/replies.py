"""
What a reply means for a run: the trigger side of `decide` for everything a participant says.

Each function records events, or returns why the message changes nothing. Late, repeated and
overtaken replies are the normal case, so "changes nothing" is an answer like any other.
"""

from collections.abc import Collection
from typing import TypeAlias

from saga_engine.decider.decision import Turn
from saga_engine.decider.events import (
    IncidentResolved,
    RunCompensating,
    StepRejected,
    StepSucceeded,
)
from saga_engine.decider.run import Cause, Incident, KeptReply, Progress, StepStatus
from saga_engine.decider.triggers import Garbled, Replied, Returned
from saga_engine.payload.encryption import SealError, reply_place
from saga_engine.payload.guard import CodeError
from saga_engine.payload.payload import PayloadError
from saga_engine.vocabulary import Direction, Failure, Json, Outcome, Status, StepKind

FOREIGN = "foreign"  # no such attempt was ever made
DUPLICATE = "duplicate"  # it is known already
LATE = "late"  # something else has been decided meanwhile, and covers it
ENGINE = "saga-engine"

Message: TypeAlias = Replied | Garbled | Returned

AWAITED = (StepStatus.IN_FLIGHT, StepStatus.WAITING)
OPEN = (*AWAITED, StepStatus.BLOCKED)


def replied(turn: Turn, reply: Replied) -> str | None:
    """Settle an attempt by what its participant says; None, or why it changes nothing."""
    if not _was_made(turn, reply):
        return FOREIGN
    progress = turn.step(reply.step).toward(reply.direction)
    if reply.outcome is Outcome.SUCCEEDED:
        return _succeeded(turn, reply, progress)
    if _overtaken(turn, reply, AWAITED):
        return LATE
    failure = reply.failure or Failure(reply.outcome.value)
    if reply.outcome is Outcome.REJECTED:
        _rejected(turn, reply, failure)
        return None
    if progress.status is not StepStatus.IN_FLIGHT:
        return LATE
    turn.fail(reply.step, reply.direction, Outcome.FAILED, failure)
    return None


def garbled(turn: Turn, reply: Garbled) -> str | None:
    """A reply that cannot be read: a person must find out what was done."""
    if not _was_made(turn, reply):
        return FOREIGN
    if _overtaken(turn, reply, AWAITED):
        return LATE
    if turn.stopping and reply.direction is Direction.ACTION:
        failure = Failure("reply_unreadable", reply.problem)
        turn.fail(reply.step, reply.direction, Outcome.UNKNOWN, failure)
    else:
        kept = KeptReply(reply.attempt, reply.text, reply.outcome, unreadable=True)
        turn.block(reply.step, reply.direction, "reply_unreadable", reply.problem, kept)
    return None


def returned(turn: Turn, command: Returned) -> str | None:
    """The broker has no queue for the command: it is tried again, then a person must look."""
    if not _was_made(turn, command):
        return FOREIGN
    if _overtaken(turn, command, (StepStatus.IN_FLIGHT,)):
        return LATE
    name = turn.order(command.step, command.direction).command
    failure = Failure("unroutable", f"No queue is bound to saga.commands for {name}.")
    turn.fail(command.step, command.direction, Outcome.FAILED, failure, returned=command)
    return None


def _was_made(turn: Turn, message: Message) -> bool:
    step = turn.run.steps.get(message.step)
    return step is not None and 1 <= message.attempt <= step.toward(message.direction).attempts


def _overtaken(turn: Turn, message: Message, awaited: Collection[StepStatus]) -> bool:
    """Whether anything but a success comes too late to say something new."""
    if turn.run.status is Status.ABANDONED:
        return True
    # An older attempt's no says nothing of the one in flight, which will speak for itself.
    progress = turn.step(message.step).toward(message.direction)
    return message.attempt != progress.attempts or progress.status not in awaited


def _succeeded(turn: Turn, reply: Replied, progress: Progress) -> str | None:
    if progress.status in OPEN:
        return _confirmed(turn, reply, progress)
    if progress.status is StepStatus.SUCCEEDED:
        return DUPLICATE
    if reply.direction is Direction.COMPENSATION or progress.status is StepStatus.SKIPPED:
        return LATE
    return _after_giving_up(turn, reply)


def _confirmed(turn: Turn, reply: Replied, progress: Progress) -> str | None:
    body = reply.body
    problem = _misfit(turn, reply)
    if problem is not None:
        if progress.status is StepStatus.BLOCKED:
            return DUPLICATE
        if not turn.stopping and not turn.run.status.finished:
            kept = KeptReply(reply.attempt, reply.body, reply.outcome)
            turn.block(reply.step, reply.direction, "reply_invalid", problem, kept)
            return None
        body = None  # nothing will read it: that the step was done is all that matters
    incident = turn.incident_of(reply.step, reply.direction)
    if incident is not None:
        turn.record(IncidentResolved(incident.number, None, ENGINE, "its reply arrived after all"))
    turn.record(StepSucceeded(reply.step, reply.direction, reply.attempt, body))
    return None


def _after_giving_up(turn: Turn, reply: Replied) -> str | None:
    """A success of a step that was rejected, or given up as failed or unknown."""
    declared = turn.saga.steps[reply.step]
    if declared.read_only:
        return LATE
    if turn.step(reply.step).compensation.status is not StepStatus.PENDING:
        return LATE  # its compensation is on its way or confirmed, and covers this effect
    body: Json = None if _misfit(turn, reply) else reply.body
    turn.record(StepSucceeded(reply.step, reply.direction, reply.attempt, body, late=True))
    if turn.run.status is Status.COMPENSATED:
        turn.record(RunCompensating(Cause("late_success", reply.step)))
    return None


def _rejected(turn: Turn, reply: Replied, failure: Failure) -> None:
    turn.record(StepRejected(reply.step, reply.direction, reply.attempt, failure))
    if reply.direction is Direction.COMPENSATION:
        turn.block(reply.step, reply.direction, "compensation_rejected", failure.text)
    elif turn.saga.kind(reply.step) is StepKind.RETRIABLE:
        turn.block(reply.step, reply.direction, "step_rejected", failure.text)
    elif not turn.stopping:
        turn.cause = Cause("rejected", reply.step, failure)


def fits_now(turn: Turn, incident: Incident) -> bool:
    """Whether the reply kept with an incident fits the definition as it is now."""
    kept = incident.kept
    if kept is None or kept.unreadable:
        return False
    assert kept.outcome is Outcome.SUCCEEDED, "only a success has a body that must fit"
    reply = Replied(incident.step, incident.direction, kept.attempt, kept.outcome, kept.body)
    return _misfit(turn, reply) is None


def _misfit(turn: Turn, reply: Replied) -> str | None:
    place = reply_place(turn.run.run_id, reply.step, reply.direction)
    try:
        body = turn.sealing.unsealed(reply.body, place)
        turn.read_reply(reply.step, reply.direction, body)
    except SealError:
        return None  # it is kept as it came; a step that needs it is blocked until the key is there
    except CodeError as error:
        return f"The reply cannot be read: {error.call.function} {turn.failed(error)}."
    except PayloadError as error:
        return f"The reply {turn.sealing.told(error)}."
    return None
