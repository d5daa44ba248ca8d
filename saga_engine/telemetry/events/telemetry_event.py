"""The closed set of telemetry events, and the type of an observer."""

from collections.abc import Callable
from typing import TypeAlias

from saga_engine.telemetry.events import (
    code_events,
    connection_events,
    consumer_events,
    feed_events,
    handler_events,
    message_events,
    process_events,
    projection_events,
    retention_events,
    run_events,
)

TelemetryEvent: TypeAlias = (
    run_events.DefinitionRegistered
    | handler_events.HandlersRegistered
    | run_events.RunStarted
    | run_events.RunCompensating
    | run_events.RunFinished
    | run_events.AttemptSent
    | run_events.AttemptFinished
    | run_events.RetryScheduled
    | run_events.IncidentOpened
    | run_events.IncidentResolved
    | run_events.OperatorActionProcessed
    | message_events.MessageIgnored
    | message_events.MessageHeld
    | message_events.MessageDeadLettered
    | message_events.BatchProcessed
    | message_events.MessagesPublished
    | message_events.MessagesConsumed
    | connection_events.BrokerConnectionChanged
    | connection_events.DatabaseUnavailable
    | connection_events.DatabaseRecovered
    | code_events.InternalErrorCaught
    | code_events.UserCodeFailed
    | code_events.UserCodeHung
    | code_events.UserCodeContained
    | code_events.SchemaBroken
    | process_events.WatchdogLost
    | process_events.WatchdogRestarted
    | process_events.ProcessStarted
    | process_events.ProcessLost
    | process_events.ProcessReady
    | process_events.ProcessStopping
    | process_events.ProcessStopped
    | handler_events.HandlerFinished
    | handler_events.HandlerFailed
    | handler_events.HandlerAbandoned
    | handler_events.BarrierHit
    | projection_events.ProjectionsRegistered
    | projection_events.ProjectionAcquired
    | projection_events.ProjectionBatchApplied
    | projection_events.ProjectionStopped
    | projection_events.StreamParked
    | projection_events.ProjectionVersionReady
    | projection_events.ProjectionSwitched
    | projection_events.ProjectionVersionRemoved
    | projection_events.ProjectionVersionKept
    | projection_events.ProjectionsMeasured
    | projection_events.HorizonHeld
    | feed_events.FeedsRegistered
    | feed_events.FeedAcquired
    | feed_events.FeedEventsPassed
    | feed_events.FeedStopped
    | feed_events.FeedEventDeadLettered
    | feed_events.FeedWaits
    | feed_events.FeedSinkDiffers
    | feed_events.FeedsMeasured
    | consumer_events.ConsumersRegistered
    | consumer_events.ConsumersMeasured
    | consumer_events.ConsumerAcquired
    | consumer_events.ConsumerBatchApplied
    | consumer_events.ConsumerStopped
    | consumer_events.ConsumerMessageKept
    | consumer_events.ConsumerPartitionsFound
    | consumer_events.ConsumerSourceUnavailable
    | retention_events.ReaderPassedOver
    | retention_events.RetentionMeasured
    | process_events.BacklogCounted
    | process_events.EventLoopLagMeasured
    | code_events.ObserverFailed
)

Observer: TypeAlias = Callable[[TelemetryEvent], None]
"""Takes each telemetry event; the log and the metrics are two observers."""
