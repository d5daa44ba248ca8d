"""One sample of each telemetry event, written by hand so that new fields get a value too."""

import typing
from typing import Any

from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.message import PublishOutcome
from saga_engine.telemetry import events
from saga_engine.telemetry.events import TelemetryEvent
from saga_engine.telemetry.operations import Operation
from saga_engine.vocabulary import (
    BarrierResult,
    CompensationCode,
    ConnectionRole,
    ConnectionState,
    Direction,
    IgnoredReason,
    IncidentCause,
    OperatorActionKind,
    Outcome,
    Program,
    Resolution,
    Status,
)

EVENT_TYPES = typing.get_args(TelemetryEvent)

_RUN: dict[str, Any] = {"saga": "place-order", "run_id": "run-1"}
_ATTEMPT: dict[str, Any] = {**_RUN, "step": "reserve", "direction": Direction.ACTION, "attempt": 2}
_MESSAGE: dict[str, Any] = {"message_id": "message-1", "correlation_id": "correlation-1"}

SAMPLES: tuple[TelemetryEvent, ...] = (
    events.DefinitionRegistered(saga="place-order", version=1, steps=("reserve", "charge")),
    events.HandlersRegistered(commands=("payment.charge",)),
    events.RunStarted(version=1, **_RUN),
    events.RunCompensating(version=1, cause=CompensationCode.REJECTED, step="charge", **_RUN),
    events.RunFinished(version=1, status=Status.COMPLETED, duration_s=0.25, **_RUN),
    events.AttemptSent(**_ATTEMPT, **_MESSAGE),
    events.AttemptFinished(outcome=Outcome.SUCCEEDED, duration_s=0.02, **_ATTEMPT, **_MESSAGE),
    events.RetryScheduled(delay_s=1.5, **_ATTEMPT),
    events.IncidentOpened(
        step="ship", direction=Direction.ACTION, cause=IncidentCause.STEP_FAILED, **_RUN
    ),
    events.IncidentResolved(
        step="ship", direction=Direction.ACTION, resolution=Resolution.RETRY, **_RUN
    ),
    events.OperatorActionProcessed(action=OperatorActionKind.CANCEL, accepted=True, run_id="run-1"),
    events.MessageIgnored(reason=IgnoredReason.LATE, **_RUN, **_MESSAGE),
    events.MessageHeld(version=2, message_id="message-1", **_RUN),
    events.MessageDeadLettered(
        queue="saga.replies",
        reason=DeadLetterReason.MALFORMED_JSON,
        problem="The body is not JSON.",
        **_MESSAGE,
    ),
    events.BatchProcessed(triggers=40, decide_s=0.002, commit_s=0.004, publish_s=0.003),
    events.MessagesPublished(
        exchange="saga.commands", outcome=PublishOutcome.CONFIRMED, messages=40
    ),
    events.MessagesConsumed(queue="saga.replies", messages=40, redelivered=3),
    events.BrokerConnectionChanged(
        connection=ConnectionRole.PUBLISH, state=ConnectionState.CONNECTED, generation=1
    ),
    events.DatabaseUnavailable(operation=Operation.BATCH, problem="PostgreSQL is unavailable."),
    events.DatabaseRecovered(operation=Operation.PARTICIPANT, outage_s=4.5),
    events.InternalErrorCaught(
        operation=Operation.DECIDE, problem="KeyError at decide.py:1", run_id="run-1"
    ),
    events.UserCodeFailed(
        step="charge",
        direction=Direction.ACTION,
        command="payment.charge",
        function="charge",
        problem="raised SystemExit at sagas.py:1",
        **_RUN,
    ),
    events.UserCodeHung(
        step="charge",
        direction="action",
        command="payment.charge",
        function="charge",
        limit_s=10.0,
        recorded=True,
        **_RUN,
    ),
    events.UserCodeContained(
        problem="It cancelled a task of the process.",
        step="charge",
        command="payment.charge",
        function="charge",
        suppressed_count=2,
        **_RUN,
    ),
    events.SchemaBroken(
        subject="place-order/reserve",
        problem="version 1 of place-order/reserve cannot read version 2: `sku` is required",
        fix="Keep what version 1 reads.",
    ),
    events.WatchdogLost(problem="It ended with -9."),
    events.WatchdogRestarted(),
    events.ProcessStarted(process=2, pid=4711),
    events.ProcessLost(process=2, problem="It exited with code 9.", delay_s=1.0),
    events.ProcessReady(program=Program.WORKER),
    events.ProcessStopping(program=Program.WORKER),
    events.ProcessStopped(program=Program.WORKER, clean=True),
    events.HandlerFinished(
        command="payment.charge",
        outcome=Outcome.SUCCEEDED,
        duration_s=0.01,
        step="charge",
        attempt=1,
        **_RUN,
        **_MESSAGE,
    ),
    events.HandlerFailed(
        command="payment.charge",
        code="OSError",
        problem="OSError at payments.py:7",
        step="charge",
        attempt=1,
        suppressed_count=3,
        **_RUN,
        **_MESSAGE,
    ),
    events.HandlerAbandoned(
        command="payment.charge",
        problem="The process stops.",
        still_running=True,
        step="charge",
        attempt=1,
        **_RUN,
        **_MESSAGE,
    ),
    events.BarrierHit(
        command="payment.charge",
        reason=BarrierResult.REPEATED,
        run_id="run-1",
        message_id="message-1",
    ),
    events.ProjectionsRegistered(projections=("orders",)),
    events.ProjectionBatchApplied(projection="orders", events=50, duration_s=0.02),
    events.ProjectionsMeasured(
        horizon=120,
        appended=20,
        horizon_age_s=1.5,
        lag_events={"orders": 7},
        lag_s={"orders": 0.5},
        states={"orders": "active"},
    ),
    events.HorizonHeld(
        position=120, age_s=6.0, pid=4711, application="shop", state="idle in transaction"
    ),
    events.ProjectionAcquired(projection="orders", version=1, position=41),
    events.ProjectionStopped(
        projection="orders",
        version=1,
        position=42,
        stream="order-o-1",
        event_type="order-placed",
        problem="placed raised ValueError at projections.py:12.",
        next_command="saga-engine projections show orders --version 1",
    ),
    events.StreamParked(
        projection="orders",
        version=1,
        position=42,
        stream="order-o-1",
        event_type="order-placed",
        problem="placed raised ValueError at projections.py:12.",
        next_command="saga-engine projections show orders --version 1",
    ),
    events.ProjectionVersionReady(
        projection="orders", version=2, next_command="saga-engine projections switch orders"
    ),
    events.ProjectionSwitched(projection="orders", version=2),
    events.ProjectionVersionRemoved(projection="orders", version=1),
    events.ProjectionVersionKept(projection="orders", problem="A view reads them."),
    events.ConsumersRegistered(consumers=("billing",)),
    events.ConsumerAcquired(consumer="billing", partition=0, next_offset=None),
    events.ConsumerBatchApplied(
        consumer="billing",
        applied=40,
        duplicates=2,
        late=1,
        passed=3,
        kept=1,
        duration_s=0.02,
        delay_s=0.4,
    ),
    events.ConsumersMeasured(
        partitions={("billing", "active"): 2, ("billing", "stopped"): 1},
        waiting={"billing": 12},
        lag_s={"billing": 1.5},
        kept={"billing": 3},
        parked_streams={"billing": 2},
        without_owner={"billing": 1},
        unavailable={"billing": 0},
    ),
    events.ConsumerStopped(
        consumer="billing",
        partition=0,
        stream="order-o-1",
        event_type="order-placed",
        problem="invoice raised ValueError.",
        next_command="saga-engine consumers show billing",
    ),
    events.ConsumerMessageKept(
        consumer="billing",
        partition=0,
        kind="unreadable",
        stream="",
        event_type="",
        problem="The body is not JSON.",
        next_command="saga-engine consumers show billing",
    ),
    events.ConsumerPartitionsFound(consumer="billing", partitions=(3, 4)),
    events.ConsumerSourceUnavailable(consumer="billing", partition=0, problem="It is gone."),
    events.FeedsRegistered(feeds=(("orders", "exchange"),)),
    events.FeedEventsPassed(feed="orders", sink="exchange", published=50, skipped=3),
    events.FeedsMeasured(
        lag_events={("orders", "exchange"): 8},
        lag_s={("orders", "exchange"): 0.75},
        states={("orders", "exchange"): "active"},
        waiting_for_sink=(("orders", "exchange"),),
        waiting_streams={("orders", "exchange"): 2},
    ),
    events.ReaderPassedOver(kind="feed", name="orders", position=41),
    events.RetentionMeasured(
        held_s={("projection", "orders"): 90_000.0}, incomplete=frozenset({("feed", "orders")})
    ),
    events.FeedAcquired(feed="orders", sink="exchange", position=41),
    events.FeedStopped(
        feed="orders",
        sink="exchange",
        position=42,
        stream="order-o-1",
        event_type="order-placed",
        problem="No queue is bound to exchange 'saga.feed'.",
        next_command="saga-engine feeds show orders --sink exchange",
    ),
    events.FeedEventDeadLettered(
        feed="orders",
        sink="webhook",
        position=42,
        stream="order-o-1",
        event_type="order-placed",
        problem="Webhook https://shop.example answered 401.",
    ),
    events.FeedWaits(feed="orders", sink="kafka", problem="Kafka is unavailable."),
    events.FeedSinkDiffers(
        feed="orders", sink="kafka", differences=("The replication of topic 'orders' is 1.",)
    ),
    events.BacklogCounted(
        runs={("place-order", "running"): 3},
        oldest_run_age_s={"place-order": 8.5},
        incidents_open={("place-order", "step_failed", "charge"): 1},
        dead_letters_open={"malformed_json": 2},
        messages_awaiting_definition=4,
        starts_awaiting_admission={"place-order": 6},
        starts_stranded={"place-order": 2},
        crash_suspects=3,
        outbox_pending=5,
        outbox_oldest_age_s=6.5,
        timers_pending=9,
        timer_overdue_s=7.5,
        runs_in_default_partition=8,
    ),
    events.EventLoopLagMeasured(lag_s=0.001),
    events.ObserverFailed(observer="Metrics", problem="KeyError at metrics.py:1"),
)


def raise_error(error: Exception) -> None:
    """Raise *error*, so that it has a location."""
    raise error
