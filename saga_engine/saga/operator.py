"""
What a person does to a run: cancel it, or act on one of its incidents.

Each function records events, or raises Refused with a sentence for that person.
"""

from dataclasses import replace

from saga_engine.saga.binding import Parameter
from saga_engine.saga.event import IncidentResolved, RunAbandoned, StepCompleted, StepSkipped
from saga_engine.saga.payload import PayloadError
from saga_engine.saga.run import Cause, Incident
from saga_engine.saga.trigger import Cancel, Resolve
from saga_engine.saga.turn import Turn
from saga_engine.saga.vocabulary import Direction, Resolution, Status


class Refused(Exception):  # noqa: N818 - an answer to a person, not an error; `decide` turns it into one
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
    match request.resolution:
        case Resolution.RETRY:
            _may_retry(turn, incident)
            _close(turn, request)
        case Resolution.SKIP:
            _may_skip(turn, incident)
            _close(turn, request)
            turn.record(StepSkipped(incident.step, incident.direction))
        case Resolution.COMPLETE:
            _may_complete(turn, incident, request)
            _close(turn, request)
            turn.record(StepCompleted(incident.step, incident.direction, request.result))
        case Resolution.ABANDON:
            for number in turn.run.incidents:
                _close(turn, replace(request, incident=number))
            turn.record(RunAbandoned(turn.now, request.by, request.reason))


def _close(turn: Turn, request: Resolve) -> None:
    turn.record(IncidentResolved(request.incident, request.resolution, request.by, request.reason))


def _may_retry(turn: Turn, incident: Incident) -> None:
    if turn.saga.steps[incident.step].order(incident.direction) is None:
        raise Refused(
            f"Step {incident.step} declares no compensation to retry;"
            " undo it by hand and resolve with complete, or skip."
        )


def _may_skip(turn: Turn, incident: Incident) -> None:
    if incident.direction is Direction.COMPENSATION:
        return
    for name in turn.saga.descendants[incident.step]:
        for direction in Direction:
            order = turn.saga.steps[name].order(direction)
            if order and any(_needs(p, incident.step) for p in order.mapping.parameters):
                raise Refused(
                    f"Step {name} needs the reply of {incident.step};"
                    " resolve with complete and give that reply."
                )


def _needs(parameter: Parameter, step: str) -> bool:
    return parameter.name == step and not parameter.optional


def _may_complete(turn: Turn, incident: Incident, request: Resolve) -> None:
    try:
        if incident.direction is Direction.ACTION:
            turn.order(incident.step, Direction.ACTION).reply.read(request.result)
    except PayloadError as error:
        raise Refused(f"The result {error}.") from None
