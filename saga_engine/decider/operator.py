"""
What a person does to a run: cancel it, or act on one of its incidents.

Each function records events, or raises Refused with a sentence for that person.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from saga_engine.decider.decision import Turn
from saga_engine.decider.events import (
    IncidentResolved,
    RunAbandoned,
    StepCompleted,
    StepRejected,
    StepSkipped,
    StepSucceeded,
)
from saga_engine.decider.replies import fits_now
from saga_engine.decider.run import Cause, Incident
from saga_engine.decider.triggers import Cancel, Resolve
from saga_engine.payload.encryption import SealError, reply_place
from saga_engine.payload.guard import CodeError
from saga_engine.payload.payload import PayloadError
from saga_engine.saga.binding import Parameter
from saga_engine.vocabulary import Direction, Failure, Resolution, Status, StepKind


class Refused(Exception):
    """What was asked is not possible here, and why."""


def cancel(turn: Turn, request: Cancel) -> str | None:
    """Make the run turn back; None, or why that changes nothing. Refused after the pivot."""
    run = turn.run
    if run.status in (Status.COMPENSATING, Status.COMPENSATED) or run.stop is not None:
        return "already"
    if run.status.finished:
        raise Refused(f"The run is {run.status} already.")
    if turn.past_pivot:
        assert turn.saga.pivot is not None  # it has been passed
        raise Refused(
            f"Step {turn.saga.pivot.name}, the pivot, has succeeded: the run can only go forward."
        )
    turn.cause = Cause("cancelled", by=request.by, reason=request.reason)
    return None


def resolve(turn: Turn, request: Resolve) -> None:
    """Do what the operator says about an open incident, or raise Refused."""
    incident = turn.run.incidents.get(request.incident)
    if incident is None:
        raise Refused(f"The run has no open incident {request.incident}.")
    ACTS[request.resolution](turn, incident, request)


def _retry(turn: Turn, incident: Incident, request: Resolve) -> None:
    if turn.saga.steps[incident.step].order(incident.direction) is None:
        raise Refused(
            f"Step {incident.step} declares no compensation to retry;"
            " undo it by hand and resolve with complete, or skip."
        )
    kept, fits = incident.kept, fits_now(turn, incident)
    _close(turn, request)
    if kept is not None and fits:
        turn.record(StepSucceeded(incident.step, incident.direction, kept.attempt, kept.body))


def _skip(turn: Turn, incident: Incident, request: Resolve) -> None:
    if incident.direction is Direction.ACTION:
        _refuse_if_needed(turn, incident.step)
    _close(turn, request)
    turn.record(StepSkipped(incident.step, incident.direction))


def _complete(turn: Turn, incident: Incident, request: Resolve) -> None:
    place = reply_place(turn.run.run_id, incident.step, incident.direction)
    try:
        if incident.direction is Direction.ACTION:
            result = turn.sealing.unsealed(request.result, place)
            turn.read_reply(incident.step, Direction.ACTION, result)
        sealed = turn.sealing.sealed(request.result, place)
    except SealError as error:
        raise Refused(f"The result {error}.") from None
    except PayloadError as error:
        raise Refused(f"The result {turn.sealing.told(error)}.") from None
    except CodeError as error:
        text = f"The result cannot be read: {error.call.function} {turn.failed(error)}."
        raise Refused(text) from None
    _close(turn, request)
    turn.record(StepCompleted(incident.step, incident.direction, sealed))


def _reject(turn: Turn, incident: Incident, request: Resolve) -> None:
    if incident.direction is Direction.COMPENSATION:
        raise Refused(
            f"A compensation of step {incident.step} that was rejected undid nothing;"
            " resolve with retry, or undo it by hand and resolve with complete."
        )
    if turn.saga.kind(incident.step) is StepKind.RETRIABLE:
        raise Refused(
            f"Step {incident.step} comes after the pivot: the run can only go forward;"
            " resolve with retry, complete or skip."
        )
    _close(turn, request)
    failure = Failure("rejected", request.reason)
    turn.record(StepRejected(incident.step, incident.direction, 0, failure))
    turn.cause = Cause("rejected", incident.step, failure, request.by, request.reason)


def _abandon(turn: Turn, _: Incident, request: Resolve) -> None:
    for number in turn.run.incidents:
        _close(turn, replace(request, incident=number))
    turn.record(RunAbandoned(turn.now, request.by, request.reason))


ACTS: Mapping[Resolution, Callable[[Turn, Incident, Resolve], None]] = {
    Resolution.RETRY: _retry,
    Resolution.SKIP: _skip,
    Resolution.COMPLETE: _complete,
    Resolution.REJECT: _reject,
    Resolution.ABANDON: _abandon,
}
"""What each resolution does, or raises Refused."""


def _close(turn: Turn, request: Resolve) -> None:
    turn.record(IncidentResolved(request.incident, request.resolution, request.by, request.reason))


def _refuse_if_needed(turn: Turn, skipped: str) -> None:
    for name in turn.saga.descendants[skipped]:
        for direction in Direction:
            order = turn.saga.steps[name].order(direction)
            if order and any(_needs(each, skipped) for each in order.mapping.parameters):
                raise Refused(
                    f"Step {name} needs the reply of {skipped};"
                    " resolve with complete and give that reply."
                )


def _needs(parameter: Parameter, step: str) -> bool:
    return parameter.name == step and not parameter.optional
