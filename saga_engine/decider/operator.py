"""
What an operator does to a run: cancel it, or act on one of its incidents.

Each function records events, or raises RequestRefused with a sentence for the operator.
"""

from dataclasses import replace

from saga_engine.decider import events
from saga_engine.decider.decision import DecisionBuilder
from saga_engine.decider.replies import accept_kept_reply
from saga_engine.decider.run import CompensationCause, KeptReply, is_past_pivot
from saga_engine.decider.step_in_direction import StepInDirection
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
    run, pivot = builder.run, builder.saga.pivot
    if run.status in (Status.COMPENSATING, Status.COMPENSATED) or builder.is_stopping:
        return IgnoredReason.ALREADY_STOPPING
    if run.status.is_finished:
        raise RequestRefused(f"The run is {run.status} already.")
    if pivot is not None and is_past_pivot(builder.saga, run):
        text = f"Step {pivot.name}, the pivot, has succeeded: the run can only go forward."
        raise RequestRefused(text)
    code = CompensationCode.CANCELLED
    cause = CompensationCause(code=code, operator=request.operator, reason=request.reason)
    builder.stop(cause)
    return None


def resolve(builder: DecisionBuilder, request: ResolveIncident) -> None:
    """Do what the operator says about an open incident."""
    incident = builder.run.incidents.get(request.incident_number)
    if incident is None:
        raise RequestRefused(f"The run has no open incident {request.incident_number}.")
    step = StepInDirection(builder, incident.step, incident.direction)
    match request.resolution:
        case Resolution.RETRY:
            _retry(step, request, incident.kept_reply)
        case Resolution.SKIP:
            _skip(step, request)
        case Resolution.COMPLETE:
            _complete(step, request)
        case Resolution.REJECT:
            _reject(step, request)
        case _:  # Resolution.ABANDON
            _abandon(builder, request)


def _close_incident(builder: DecisionBuilder, request: ResolveIncident) -> None:
    number, resolution = request.incident_number, request.resolution
    builder.record(events.IncidentResolved(number, resolution, request.operator, request.reason))


def _retry(step: StepInDirection, request: ResolveIncident, kept_reply: KeptReply | None) -> None:
    if step.declared.command_spec(step.direction) is None:
        raise RequestRefused(
            f"Step {step.name} declares no compensation to retry;"
            " undo it by hand and resolve with complete, or skip."
        )
    # Closing makes the step pending (events.IncidentResolved). A kept reply that fits now settles
    # it. Otherwise `advance` starts its next attempt: with the same payload and round, or with new
    # ones if it was rejected. commands.py makes the idempotency key of the round.
    _close_incident(step.builder, request)
    accept_kept_reply(step, kept_reply)


def _skip(step: StepInDirection, request: ResolveIncident) -> None:
    if step.direction is Direction.ACTION:
        _refuse_if_reply_needed(step)
    _close_incident(step.builder, request)
    step.builder.record(events.StepSkipped(step.name, step.direction))


def _refuse_if_reply_needed(skipped: StepInDirection) -> None:
    saga = skipped.builder.saga
    for name in saga.descendants[skipped.name]:
        for spec in saga.steps[name].command_specs:
            if any(p.name == skipped.name and not p.optional for p in spec.mapping.parameters):
                raise RequestRefused(
                    f"Step {name} needs the reply of {skipped.name};"
                    " resolve with complete and give that reply."
                )


def _complete(step: StepInDirection, request: ResolveIncident) -> None:
    payloads, name, direction = step.builder.payloads, step.name, step.direction
    try:
        if direction is Direction.ACTION:
            payloads.check_reply(name, direction, request.result)
        reply = payloads.encrypt_reply(name, direction, request.result)
    except READ_ERRORS as error:
        raise RequestRefused(payloads.problem_text("The result", error)) from None
    _close_incident(step.builder, request)
    step.builder.record(events.StepCompleted(name, direction, reply))


def _reject(step: StepInDirection, request: ResolveIncident) -> None:
    builder, name = step.builder, step.name
    if step.direction is Direction.COMPENSATION:
        raise RequestRefused(
            f"A compensation of step {name} that was rejected undid nothing;"
            " resolve with retry, or undo it by hand and resolve with complete."
        )
    if builder.saga.step_kind(name) is StepKind.RETRIABLE:
        raise RequestRefused(
            f"Step {name} comes after the pivot: the run can only go forward;"
            " resolve with retry, complete or skip."
        )
    _close_incident(builder, request)
    failure = Failure.by_engine(EngineFailureCode.REJECTED, request.reason)
    builder.record(events.StepRejected(name, step.direction, 0, failure))
    cause = CompensationCause(
        code=CompensationCode.REJECTED,
        step=name,
        failure=failure,
        operator=request.operator,
        reason=request.reason,
    )
    builder.stop(cause)


def _abandon(builder: DecisionBuilder, request: ResolveIncident) -> None:
    for number in builder.run.incidents:
        _close_incident(builder, replace(request, incident_number=number))
    builder.record(events.RunAbandoned(builder.now, request.operator, request.reason))
