"""The closed set of telemetry events, and the type of an observer."""

from collections.abc import Callable
from typing import TypeAlias

from saga_engine.telemetry.events.code_events import (
    InternalErrorCaught,
    ObserverFailed,
    UserCodeContained,
    UserCodeFailed,
    UserCodeHung,
)
from saga_engine.telemetry.events.connection_events import (
    BrokerConnectionChanged,
    DatabaseRecovered,
    DatabaseUnavailable,
)
from saga_engine.telemetry.events.feed_events import (
    FeedAcquired,
    FeedEventsPassed,
    FeedsMeasured,
    FeedsRegistered,
    FeedStopped,
)
from saga_engine.telemetry.events.handler_events import (
    BarrierHit,
    HandlerAbandoned,
    HandlerFailed,
    HandlerFinished,
    HandlersRegistered,
)
from saga_engine.telemetry.events.message_events import (
    BatchProcessed,
    MessageDeadLettered,
    MessageHeld,
    MessageIgnored,
    MessagesConsumed,
    MessagesPublished,
)
from saga_engine.telemetry.events.process_events import (
    BacklogCounted,
    EventLoopLagMeasured,
    ProcessReady,
    ProcessStopped,
    ProcessStopping,
    WatchdogLost,
    WatchdogRestarted,
)
from saga_engine.telemetry.events.projection_events import (
    HorizonHeld,
    ProjectionAcquired,
    ProjectionBatchApplied,
    ProjectionsMeasured,
    ProjectionsRegistered,
    ProjectionStopped,
    ProjectionVersionKept,
    ProjectionVersionRemoved,
    StreamParked,
)
from saga_engine.telemetry.events.run_events import (
    AttemptFinished,
    AttemptSent,
    DefinitionRegistered,
    IncidentOpened,
    IncidentResolved,
    OperatorActionProcessed,
    RetryScheduled,
    RunCompensating,
    RunFinished,
    RunStarted,
)

TelemetryEvent: TypeAlias = (
    DefinitionRegistered | HandlersRegistered
    | RunStarted | RunCompensating | RunFinished
    | AttemptSent | AttemptFinished | RetryScheduled
    | IncidentOpened | IncidentResolved | OperatorActionProcessed
    | MessageIgnored | MessageHeld | MessageDeadLettered
    | BatchProcessed | MessagesPublished | MessagesConsumed
    | BrokerConnectionChanged | DatabaseUnavailable | DatabaseRecovered | InternalErrorCaught
    | UserCodeFailed | UserCodeHung | UserCodeContained | WatchdogLost | WatchdogRestarted
    | ProcessReady | ProcessStopping | ProcessStopped
    | HandlerFinished | HandlerFailed | HandlerAbandoned | BarrierHit
    | ProjectionsRegistered | ProjectionAcquired | ProjectionBatchApplied | ProjectionStopped
    | StreamParked | ProjectionVersionRemoved | ProjectionVersionKept | ProjectionsMeasured
    | HorizonHeld | FeedsRegistered | FeedAcquired | FeedEventsPassed | FeedStopped | FeedsMeasured
    | BacklogCounted | EventLoopLagMeasured | ObserverFailed
)  # fmt: skip

Observer: TypeAlias = Callable[[TelemetryEvent], None]
"""Takes each telemetry event; the log and the metrics are two observers."""
