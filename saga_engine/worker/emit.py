"""What a committed batch did, told as facts: from events to what is logged and counted."""

from collections.abc import Iterator

from saga_engine.decider import events
from saga_engine.decider.run import StepStatus
from saga_engine.payload.guard import CodeError
from saga_engine.protocol.token import shown
from saga_engine.telemetry.events import (
    AttemptSent,
    AttemptSettled,
    CodeFailed,
    Fact,
    FaultFound,
    IncidentOpened,
    IncidentResolved,
    MessageDeadLettered,
    MessageIgnored,
    MessageParked,
    OperatorAnswered,
    RetryScheduled,
    RunCompensating,
    RunFinished,
    RunStarted,
    Tell,
    described,
)
from saga_engine.vocabulary import Direction, Outcome
from saga_engine.worker.change_set import Ledger, Recorded
from saga_engine.worker.work_item import Arrival


def account(tell: Tell, ledger: Ledger) -> None:
    """Tell all that a committed batch did."""
    outcome = ledger.outcome
    for recorded in outcome.recorded:
        for fact in _facts(recorded, ledger):
            tell(fact)
    for arrival, why in outcome.ignored:
        tell(_ignored(arrival, why, ledger))
    for letter in outcome.letters:
        tell(
            MessageDeadLettered(
                queue=letter.delivery.queue,
                reason=letter.reason,
                problem=letter.sentence,
                run_id=letter.run_id or "",
                message_id=letter.delivery.message_id,
                correlation_id=shown(letter.delivery.correlation_id),
            )
        )
    for arrival in outcome.parked:
        tell(_parked(arrival, ledger))
    _tell_problems(tell, ledger)
    for verdict in ledger.verdicts:
        tell(
            OperatorAnswered(
                action=verdict.action, accepted=verdict.accepted, run_id=verdict.run_id
            )
        )


def _tell_problems(tell: Tell, ledger: Ledger) -> None:
    for failure in ledger.outcome.failures:
        tell(_failed(failure))
    for run_id, error in ledger.outcome.faults:
        tell(FaultFound(operation="decide", problem=described(error), run_id=run_id))


def _facts(recorded: Recorded, ledger: Ledger) -> Iterator[Fact]:  # noqa: C901 - one arm an event
    run, event = recorded.after, recorded.event
    named = {"saga": run.saga, "run_id": run.run_id}
    match event:
        case events.RunStarted():
            yield RunStarted(version=run.version, **named)
        case events.AttemptStarted():
            yield AttemptSent(
                step=event.step, direction=event.direction, attempt=event.attempt, **named
            )
        case events.StepSucceeded() if event.attempt:
            yield _settled(recorded, ledger, event, Outcome.SUCCEEDED)
        case events.StepRejected() if event.attempt:  # without one, an operator said so
            yield _settled(recorded, ledger, event, Outcome.REJECTED)
        case events.AttemptFailed():
            yield _settled(recorded, ledger, event, event.outcome)
            if event.retry_at is not None:
                yield RetryScheduled(
                    step=event.step,
                    direction=event.direction,
                    attempt=event.attempt,
                    delay_s=(event.retry_at - ledger.now).total_seconds(),
                    **named,
                )
        case events.RunCompensating():
            cause = event.cause
            yield RunCompensating(version=run.version, cause=cause.code, step=cause.step, **named)
        case events.IncidentOpened():
            yield IncidentOpened(
                step=event.step, direction=event.direction, cause=event.cause, **named
            )
        case events.IncidentResolved():
            yield _resolved(recorded, event)
        case events.RunCompleted() | events.RunCompensated() | events.RunAbandoned():
            yield RunFinished(
                version=run.version,
                status=run.status,
                duration_s=(event.finished_at - run.started_at).total_seconds(),
                **named,
            )
        case _:
            pass  # the rest are details of these, and stand in the journal


def _settled(
    recorded: Recorded,
    ledger: Ledger,
    event: events.StepSucceeded | events.StepRejected | events.AttemptFailed,
    outcome: Outcome,
) -> AttemptSettled:
    arrival = recorded.arrival
    return AttemptSettled(
        saga=recorded.after.saga,
        step=event.step,
        direction=event.direction,
        attempt=event.attempt,
        run_id=recorded.after.run_id,
        outcome=outcome,
        duration_s=_duration(recorded, ledger, event.step, event.direction),
        message_id=arrival.message_id if arrival else "",
        correlation_id=arrival.correlation_id if arrival else "",
    )


def _failed(error: CodeError) -> CodeFailed:
    call = error.call
    return CodeFailed(
        saga=call.saga,
        run_id=call.run_id,
        step=call.step,
        direction=call.direction,
        command=call.command,
        function=call.function,
        problem=error.text,
    )


def _duration(recorded: Recorded, ledger: Ledger, step: str, direction: Direction) -> float | None:
    """Seconds since the attempt in flight was ordered."""
    if recorded.before is None:
        return None
    progress = recorded.before.steps[step].toward(direction)
    if progress.status is not StepStatus.IN_FLIGHT or progress.sent_at is None:
        return None
    return max(0.0, (ledger.now - progress.sent_at).total_seconds())


def _resolved(recorded: Recorded, event: events.IncidentResolved) -> IncidentResolved:
    run = recorded.before or recorded.after
    incident = run.incidents.get(event.number)
    return IncidentResolved(
        saga=run.saga,
        step=incident.step if incident else "",
        direction=incident.direction if incident else Direction.ACTION,
        run_id=run.run_id,
        resolution=event.resolution,
    )


def _ignored(arrival: Arrival, why: str, ledger: Ledger) -> MessageIgnored:
    stored = ledger.stored.get(arrival.run_id)
    return MessageIgnored(
        reason=why,
        saga=stored.run.saga if stored else "",
        run_id=arrival.run_id,
        message_id=arrival.message_id,
        correlation_id=arrival.correlation_id,
    )


def _parked(arrival: Arrival, ledger: Ledger) -> MessageParked:
    stored = ledger.stored.get(arrival.run_id)
    return MessageParked(
        saga=stored.run.saga if stored else arrival.saga,
        version=stored.run.version if stored else arrival.version,
        run_id=arrival.run_id,
        message_id=arrival.message_id,
    )
