"""
Telemetry events: what happened in a process, as frozen records.

    run_events         runs, attempts, incidents and operators' actions
    message_events     messages consumed, processed, published, ignored, held and dead-lettered
    connection_events  the connections to RabbitMQ and PostgreSQL
    consumer_events    which process runs a consumer, and what it cannot apply
    code_events        bugs of the engine, and code of the user that fails or hangs
    process_events     start and stop, supervised processes, the watchdog, lag, and the backlog
    event_failure      an event that cannot be processed: what the next two have in common
    feed_events        which process runs a feed, and events that it cannot publish
    projection_events  projections: who runs them, how far they are, what they cannot apply
    retention_events   projections and feeds that retention waits for, or has passed over
    handler_events     a participant's handlers and its barrier
    telemetry_event    the union of them all, and the type of an observer
    emitter            hands each event to every observer

The engine and the participant kit never log or count: they emit these events, and `logs` and
`metrics` are two observers of them. An event has ids, sizes and durations in seconds, never a
payload, a password or a key. Text of other programs is in `problem` only, which is never a label.

Some have the name of an event in a run's journal (`decider.events`), because they report it. A
journal event is a stored decision; a telemetry event is emitted after the commit and then gone.
"""

from saga_engine.telemetry.events.code_events import (
    InternalErrorCaught,
    ObserverFailed,
    SchemaBroken,
    UserCodeContained,
    UserCodeFailed,
    UserCodeHung,
)
from saga_engine.telemetry.events.connection_events import (
    BrokerConnectionChanged,
    DatabaseRecovered,
    DatabaseUnavailable,
)
from saga_engine.telemetry.events.consumer_events import (
    ConsumerAcquired,
    ConsumerBatchApplied,
    ConsumerMessageKept,
    ConsumerPartitionsFound,
    ConsumersMeasured,
    ConsumerSourceUnavailable,
    ConsumersRegistered,
    ConsumerStopped,
)
from saga_engine.telemetry.events.emitter import (
    Emitter,
    describe_error,
)
from saga_engine.telemetry.events.feed_events import (
    FeedAcquired,
    FeedEventDeadLettered,
    FeedEventsPassed,
    FeedSinkDiffers,
    FeedsMeasured,
    FeedsRegistered,
    FeedStopped,
    FeedWaits,
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
    ProcessLost,
    ProcessReady,
    ProcessStarted,
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
    ProjectionSwitched,
    ProjectionVersionKept,
    ProjectionVersionReady,
    ProjectionVersionRemoved,
    StreamParked,
)
from saga_engine.telemetry.events.retention_events import ReaderPassedOver, RetentionMeasured
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
from saga_engine.telemetry.events.telemetry_event import (
    Observer,
    TelemetryEvent,
)

__all__ = [
    "AttemptFinished",
    "AttemptSent",
    "BacklogCounted",
    "BarrierHit",
    "BatchProcessed",
    "BrokerConnectionChanged",
    "ConsumerAcquired",
    "ConsumerBatchApplied",
    "ConsumerMessageKept",
    "ConsumerPartitionsFound",
    "ConsumerSourceUnavailable",
    "ConsumerStopped",
    "ConsumersMeasured",
    "ConsumersRegistered",
    "DatabaseRecovered",
    "DatabaseUnavailable",
    "DefinitionRegistered",
    "Emitter",
    "EventLoopLagMeasured",
    "FeedAcquired",
    "FeedEventDeadLettered",
    "FeedEventsPassed",
    "FeedSinkDiffers",
    "FeedStopped",
    "FeedWaits",
    "FeedsMeasured",
    "FeedsRegistered",
    "HandlerAbandoned",
    "HandlerFailed",
    "HandlerFinished",
    "HandlersRegistered",
    "HorizonHeld",
    "IncidentOpened",
    "IncidentResolved",
    "InternalErrorCaught",
    "MessageDeadLettered",
    "MessageHeld",
    "MessageIgnored",
    "MessagesConsumed",
    "MessagesPublished",
    "Observer",
    "ObserverFailed",
    "OperatorActionProcessed",
    "ProcessLost",
    "ProcessReady",
    "ProcessStarted",
    "ProcessStopped",
    "ProcessStopping",
    "ProjectionAcquired",
    "ProjectionBatchApplied",
    "ProjectionStopped",
    "ProjectionSwitched",
    "ProjectionVersionKept",
    "ProjectionVersionReady",
    "ProjectionVersionRemoved",
    "ProjectionsMeasured",
    "ProjectionsRegistered",
    "ReaderPassedOver",
    "RetentionMeasured",
    "RetryScheduled",
    "RunCompensating",
    "RunFinished",
    "RunStarted",
    "SchemaBroken",
    "StreamParked",
    "TelemetryEvent",
    "UserCodeContained",
    "UserCodeFailed",
    "UserCodeHung",
    "WatchdogLost",
    "WatchdogRestarted",
    "describe_error",
]
