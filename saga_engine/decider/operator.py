"""
What an operator does to a run: cancel it, or act on one of its incidents.

Each function records events, or raises RequestRefused with a sentence for the operator.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from saga_engine.decider import events
from saga_engine.decider.decision import DecisionBuilder
from saga_engine.decider.pivot import is_past_pivot
from saga_engine.decider.replies import accept_kept_reply
from saga_engine.decider.run import CompensationCause, Incident
from saga_engine.decider.triggers import Cancel, ResolveIncident
from saga_engine.payload.reader import READ_ERRORS
from saga_engine.vocabulary import (
    CompensationCode,
    Direction,
    EngineFailureCode,
    Failure,
    IgnoredReason,
    Resolution,
    Status,
    StepKind,
)


class RequestRefused(Exception):
    """A request that is not possible in this state of the run; the text says why."""


def cancel(builder: DecisionBuilder, request: Cancel) -> IgnoredReason | None:
    """Make the run compensate; return why that changes nothing, or None."""
    run = builder.run
    if run.status in (Status.COMPENSATING, Status.COMPENSATED) or run.stop_cause is not None:
        return IgnoredReason.ALREADY_STOPPING
    if run.status.is_finished:
        raise RequestRefused(f"The run is {run.status} already.")
    pivot = builder.saga.pivot
    if pivot is not None and is_past_pivot(builder.saga, run):
        text = f"Step {pivot.name}, the pivot, has succeeded: the run can only go forward."
        raise RequestRefused(text)
    builder.pending_stop = CompensationCause(
        code=CompensationCode.CANCELLED, operator=request.operator, reason=request.reason
    )
    return None


def resolve(builder: DecisionBuilder, request: ResolveIncident) -> None:
    """Do what the operator says about an open incident."""
    incident = builder.run.incidents.get(request.incident_number)
    if incident is None:
        raise RequestRefused(f"The run has no open incident {request.incident_number}.")
    _RESOLUTIONS[request.resolution](builder, incident, request)


def _retry(builder: DecisionBuilder, incident: Incident, request: ResolveIncident) -> None:
    if builder.saga.steps[incident.step].command_spec(incident.direction) is None:
        raise RequestRefused(
            f"Step {incident.step} declares no compensation to retry;"
            " undo it by hand and resolve with complete, or skip."
        )
    # Closing makes the step pending (events.IncidentResolved). A kept reply that fits now settles
    # it. Otherwise `advance` starts its next attempt: with the same payload and round, or with new
    # ones if it was rejected. commands.py makes the idempotency key of the round.
    _close_incident(builder, request)
    accept_kept_reply(builder, incident)


def _skip(builder: DecisionBuilder, incident: Incident, request: ResolveIncident) -> None:
    if incident.direction is Direction.ACTION:
        _refuse_if_reply_needed(builder, incident.step)
    _close_incident(builder, request)
    builder.record(events.StepSkipped(incident.step, incident.direction))


def _complete(builder: DecisionBuilder, incident: Incident, request: ResolveIncident) -> None:
    payloads, step, direction = builder.payloads, incident.step, incident.direction
    try:
        if direction is Direction.ACTION:
            payloads.check_reply(step, direction, request.result)
        reply = payloads.encrypt_reply(step, direction, request.result)
    except READ_ERRORS as error:
        raise RequestRefused(payloads.problem_text("The result", error)) from None
    _close_incident(builder, request)
    builder.record(events.StepCompleted(step, direction, reply))


def _reject(builder: DecisionBuilder, incident: Incident, request: ResolveIncident) -> None:
    if incident.direction is Direction.COMPENSATION:
        raise RequestRefused(
            f"A compensation of step {incident.step} that was rejected undid nothing;"
            " resolve with retry, or undo it by hand and resolve with complete."
        )
    if builder.saga.step_kind(incident.step) is StepKind.RETRIABLE:
        raise RequestRefused(
            f"Step {incident.step} comes after the pivot: the run can only go forward;"
            " resolve with retry, complete or skip."
        )
    _close_incident(builder, request)
    failure = Failure.by_engine(EngineFailureCode.REJECTED, request.reason)
    builder.record(events.StepRejected(incident.step, incident.direction, 0, failure))
    builder.pending_stop = CompensationCause(
        code=CompensationCode.REJECTED,
        step=incident.step,
        failure=failure,
        operator=request.operator,
        reason=request.reason,
    )


def _abandon(builder: DecisionBuilder, _: Incident, request: ResolveIncident) -> None:
    for number in builder.run.incidents:
        _close_incident(builder, replace(request, incident_number=number))
    builder.record(events.RunAbandoned(builder.now, request.operator, request.reason))


def _close_incident(builder: DecisionBuilder, request: ResolveIncident) -> None:
    number, resolution = request.incident_number, request.resolution
    builder.record(events.IncidentResolved(number, resolution, request.operator, request.reason))


def _refuse_if_reply_needed(builder: DecisionBuilder, skipped: str) -> None:
    for name in builder.saga.descendants[skipped]:
        for direction in Direction:
            spec = builder.saga.steps[name].command_spec(direction)
            parameters = spec.mapping.parameters if spec is not None else ()
            if any(each.name == skipped and not each.optional for each in parameters):
                raise RequestRefused(
                    f"Step {name} needs the reply of {skipped};"
                    " resolve with complete and give that reply."
                )


_RESOLUTIONS: Mapping[Resolution, Callable[[DecisionBuilder, Incident, ResolveIncident], None]] = {
    Resolution.RETRY: _retry,
    Resolution.SKIP: _skip,
    Resolution.COMPLETE: _complete,
    Resolution.REJECT: _reject,
    Resolution.ABANDON: _abandon,
}
