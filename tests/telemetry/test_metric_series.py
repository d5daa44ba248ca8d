"""No message and no database can create series without bound."""

from typing import Any

import pytest

from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.message import PublishOutcome
from saga_engine.telemetry import events
from saga_engine.telemetry.metric_series import MAX_CODES_PER_LABEL, MAX_SAGAS
from saga_engine.vocabulary import (
    BarrierResult,
    ConnectionState,
    Direction,
    Outcome,
    Status,
)


def unregistered(number: int) -> tuple[events.TelemetryEvent, ...]:
    text: Any = f"canary-{number}"
    run: dict[str, Any] = {"saga": text, "run_id": text}
    at: dict[str, Any] = {**run, "step": text, "direction": Direction.ACTION}
    return (
        events.RunStarted(version=number, **run),
        events.RunCompensating(version=number, cause=text, **run),
        events.RunFinished(version=number, status=Status.COMPLETED, duration_s=1, **run),
        events.AttemptFinished(attempt=number, outcome=Outcome.FAILED, duration_s=1, **at),
        events.RetryScheduled(attempt=number, delay_s=1, **at),
        events.OperatorActionProcessed(action=text, accepted=True),
        events.BrokerConnectionChanged(
            connection=text, state=ConnectionState.CONNECTED, generation=number
        ),
        events.HandlerFinished(command=text, outcome=Outcome.FAILED, duration_s=1),
        events.HandlerFailed(command=text, code=text, problem=text),
        events.HandlerAbandoned(command=text, problem=text, still_running=True),
        events.BarrierHit(command=text, reason=BarrierResult.REPEATED),
    )


def test_unregistered_names_share_one_series(exposition):
    for number in range(3):
        exposition.emit(*unregistered(number))
    before = exposition.series()
    for number in range(3, 500):
        exposition.emit(*unregistered(number))

    assert exposition.series() == before
    assert b"canary" not in exposition.metrics.render()[0]


def test_an_unregistered_step_counts_as_other(observed):
    observed.emit(
        events.RetryScheduled(
            saga="place-order",
            step="canary",
            direction=Direction.ACTION,
            attempt=1,
            run_id="r",
            delay_s=1,
        )
    )

    labels = {"saga": "place-order", "step": "other", "direction": "action"}
    assert observed.value("saga_step_retries_total", **labels) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda text: events.MessageDeadLettered(queue=text, reason=DeadLetterReason.TOO_DEEP),
        lambda text: events.MessageDeadLettered(queue="q", reason=text),
        lambda text: events.MessageIgnored(reason=text),
        lambda text: events.DatabaseUnavailable(operation=text, problem=""),
        lambda text: events.InternalErrorCaught(operation=text, problem=""),
        lambda text: events.MessagesPublished(
            exchange=text, outcome=PublishOutcome.CONFIRMED, messages=1
        ),
        lambda text: events.MessagesConsumed(queue=text, messages=1),
        lambda text: events.BarrierHit(command="c", reason=text),
        lambda text: events.IncidentOpened(
            saga="s", step="s", direction=Direction.ACTION, run_id="r", cause=text
        ),
    ],
)
def test_code_labels_are_bounded_and_well_formed(exposition, make):
    before = exposition.series()
    for number in range(10 * MAX_CODES_PER_LABEL):
        exposition.emit(make(f"code_{number}"), make(f"not a code {number}\n"), make("x" * 1000))

    # Two metrics have the label queue, and each keeps `other` beside the codes.
    assert exposition.series() - before <= 2 * (MAX_CODES_PER_LABEL + 1)
    assert b"not a code" not in exposition.metrics.render()[0]


def test_the_sagas_of_one_gauge_are_bounded(exposition):
    counts = {(f"saga-{number:05}", "running"): 1 for number in range(10 * MAX_SAGAS)}

    exposition.emit(events.BacklogCounted(runs=counts))

    assert exposition.series("saga_runs{") == MAX_SAGAS + 1
    assert exposition.value("saga_runs", saga="other", status="running") == 9 * MAX_SAGAS


def test_fifty_sagas_of_ten_steps_start_with_fewer_than_5000_series(exposition):
    for number in range(50):
        exposition.metrics.register_saga(
            f"saga-{number}", 1, [f"step-{step}" for step in range(10)]
        )

    assert exposition.series() < 5000
