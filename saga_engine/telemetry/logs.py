"""
An observer that writes telemetry events as log lines, and the format of all log lines.

Each event is one line with the dotted name from LOG_EVENTS. Its fields are the keys of the line, so
`run_id`, `saga`, `step`, `attempt`, `message_id` and `correlation_id` always have these names. The
format is JSON, or text on a terminal. Lines that libraries and handlers write to `logging` get the
same format. No received text can end a line, show a password or grow without bound.
"""

import logging
import sys
import traceback
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import fields
from typing import Any, TextIO

import orjson
import structlog

from saga_engine.protocol.message import PublishOutcome
from saga_engine.settings import Settings
from saga_engine.telemetry import events
from saga_engine.telemetry.events import Observer, TelemetryEvent
from saga_engine.telemetry.redaction import redact_secrets, sanitize_line
from saga_engine.telemetry.throttle import Throttle
from saga_engine.vocabulary import Outcome

LOG_EVENTS: Mapping[type[TelemetryEvent], tuple[str, int]] = {
    events.DefinitionRegistered: ("definition.registered", logging.INFO),
    events.HandlersRegistered: ("handlers.registered", logging.INFO),
    events.RunStarted: ("run.started", logging.INFO),
    events.RunCompensating: ("run.compensating", logging.INFO),
    events.RunFinished: ("run.finished", logging.INFO),
    events.AttemptSent: ("attempt.sent", logging.DEBUG),
    events.AttemptFinished: ("attempt.finished", logging.DEBUG),
    events.RetryScheduled: ("retry.scheduled", logging.INFO),
    events.IncidentOpened: ("incident.opened", logging.ERROR),
    events.IncidentResolved: ("incident.resolved", logging.INFO),
    events.OperatorActionProcessed: ("operator_action.processed", logging.INFO),
    events.MessageIgnored: ("message.ignored", logging.DEBUG),
    events.MessageHeld: ("message.held", logging.WARNING),
    events.MessageDeadLettered: ("message.dead_lettered", logging.WARNING),
    events.BatchProcessed: ("batch.processed", logging.DEBUG),
    events.MessagesPublished: ("messages.published", logging.DEBUG),
    events.MessagesConsumed: ("messages.consumed", logging.DEBUG),
    events.BrokerConnectionChanged: ("broker_connection.changed", logging.INFO),
    events.DatabaseUnavailable: ("database.unavailable", logging.WARNING),
    events.DatabaseRecovered: ("database.recovered", logging.INFO),
    events.InternalErrorCaught: ("internal_error.caught", logging.ERROR),
    events.UserCodeFailed: ("user_code.failed", logging.ERROR),
    events.UserCodeHung: ("user_code.hung", logging.ERROR),
    events.UserCodeContained: ("user_code.contained", logging.ERROR),
    events.SchemaBroken: ("schema.broken", logging.WARNING),
    events.WatchdogLost: ("watchdog.lost", logging.WARNING),
    events.WatchdogRestarted: ("watchdog.restarted", logging.INFO),
    events.ProcessStarted: ("process.started", logging.INFO),
    events.ProcessLost: ("process.lost", logging.WARNING),
    events.ProcessReady: ("process.ready", logging.INFO),
    events.ProcessStopping: ("process.stopping", logging.INFO),
    events.ProcessStopped: ("process.stopped", logging.INFO),
    events.HandlerFinished: ("handler.finished", logging.DEBUG),
    events.HandlerFailed: ("handler.failed", logging.WARNING),
    events.HandlerAbandoned: ("handler.abandoned", logging.WARNING),
    events.BarrierHit: ("barrier.hit", logging.DEBUG),
    events.ProjectionsRegistered: ("projections.registered", logging.INFO),
    events.ProjectionAcquired: ("projection.acquired", logging.INFO),
    events.ProjectionBatchApplied: ("projection_batch.applied", logging.DEBUG),
    events.ProjectionStopped: ("projection.stopped", logging.ERROR),
    events.StreamParked: ("stream.parked", logging.ERROR),
    events.ProjectionVersionReady: ("projection_version.ready", logging.INFO),
    events.ProjectionSwitched: ("projection.switched", logging.INFO),
    events.ProjectionVersionRemoved: ("projection_version.removed", logging.INFO),
    events.ProjectionVersionKept: ("projection_version.kept", logging.WARNING),
    events.FeedsRegistered: ("feeds.registered", logging.INFO),
    events.FeedAcquired: ("feed.acquired", logging.INFO),
    events.FeedEventsPassed: ("feed_events.passed", logging.DEBUG),
    events.FeedsMeasured: ("feeds.measured", logging.DEBUG),
    events.FeedStopped: ("feed.stopped", logging.ERROR),
    events.FeedEventDeadLettered: ("feed_event.dead_lettered", logging.ERROR),
    events.ConsumersRegistered: ("consumers.registered", logging.INFO),
    events.ConsumersMeasured: ("consumers.measured", logging.DEBUG),
    events.ConsumerAcquired: ("consumer.acquired", logging.INFO),
    events.ConsumerBatchApplied: ("consumer_batch.applied", logging.DEBUG),
    events.ConsumerStopped: ("consumer.stopped", logging.ERROR),
    events.ConsumerMessageKept: ("consumer_message.kept", logging.ERROR),
    events.ConsumerPartitionsFound: ("consumer_partitions.found", logging.INFO),
    events.ConsumerSourceUnavailable: ("consumer_source.unavailable", logging.WARNING),
    events.FeedWaits: ("feed.waits", logging.WARNING),
    events.FeedSinkDiffers: ("feed.sink_differs", logging.WARNING),
    events.ProjectionsMeasured: ("projections.measured", logging.DEBUG),
    events.HorizonHeld: ("horizon.held", logging.WARNING),
    events.ReaderPassedOver: ("reader.passed_over", logging.ERROR),
    events.RetentionMeasured: ("retention.measured", logging.DEBUG),
    events.BacklogCounted: ("backlog.counted", logging.DEBUG),
    events.EventLoopLagMeasured: ("event_loop.lag_measured", logging.DEBUG),
    events.ObserverFailed: ("observer.failed", logging.ERROR),
}
"""The log name of each event, and its level when nothing is wrong (see `level_of`)."""

LIBRARY_LOG_LEVELS: Mapping[str, int] = {
    "aio_pika": logging.WARNING,  # at lower levels these log what they send and receive
    "aiormq": logging.WARNING,
    "pamqp": logging.WARNING,
    "asyncio": logging.INFO,
    "sqlalchemy": logging.WARNING,  # at lower levels it logs statements with their values
    "alembic": logging.INFO,
    "uvicorn": logging.ERROR,  # its warnings are malformed requests
}
"""Libraries whose exceptions lose their text, and the lowest level at which each is logged."""

_SAID_BY_THE_ENGINE = (
    "error when creating transport: ",  # of aiormq; the engine names the server and what to do
    "Exception closing connection ",  # of SQLAlchemy's pool, for a connection that is lost anyway
    "Exception terminating connection ",
)
"""How lines of libraries begin that show an object of Python, beside a sentence or for nothing."""

THROTTLE_BURST = 5
"""
Lines of one kind about a connection within `log_throttle_interval`.

An outage causes two or three lines, and its end must be visible; more would say nothing new.
"""

# Its own fields before inherited ones: a line says first what it is about.
_FIELD_NAMES = {
    kind: tuple(
        sorted((each.name for each in fields(kind)), key=lambda n: n not in kind.__annotations__)
    )
    for kind in LOG_EVENTS
}
_OMITTED_VALUES: tuple[object, ...] = (None, "")


def configure_logging(
    settings: Settings, stream: TextIO | None = None, *, process: int | None = None
) -> Observer:
    """
    Send `logging` to *stream* (default: stderr), and return the observer that logs events to it.

    Each line has the key `process` if this is one of several processes of a supervisor.

    `log_level` and `log_format` apply to both. This replaces the handlers of the root logger, so
    only programs call it; code that embeds the engine observes the events instead.
    """
    stream = sys.stderr if stream is None else stream
    min_level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    use_console = settings.log_format == "console" or (
        settings.log_format == "auto" and stream.isatty()
    )
    renderer = (
        structlog.dev.ConsoleRenderer(colors=stream.isatty()) if use_console else _render_json
    )
    keys = {} if process is None else {"process": process}

    def render(logger: object, method: str, event_dict: Mapping[str, Any]) -> Any:
        return renderer(logger, method, {**event_dict, **keys})

    _configure_standard_logging(stream, min_level, render)
    return LogSink(
        structlog.wrap_logger(
            structlog.WriteLogger(stream),
            processors=[
                sanitize_values,
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper("iso", utc=True),
                render,
            ],
            wrapper_class=structlog.make_filtering_bound_logger(min_level),
        ),
        min_level,
        Throttle(settings.log_throttle_interval, burst=THROTTLE_BURST),
    )


class LogSink:
    """
    Writes each event at or above the level as one line.

    A flapping connection gets THROTTLE_BURST lines of one kind within `log_throttle_interval`;
    further ones are counted and written at debug.
    """

    def __init__(self, logger: Any, min_level: int, throttle: Throttle) -> None:
        self._logger = logger
        self._min_level = min_level
        self._throttle = throttle
        self._lost_lines = 0

    def __call__(self, event: TelemetryEvent) -> None:
        """
        Write *event*, without keys that have no value.

        Raises:
            OSError: the stream does not accept it.
        """
        level = level_of(event)
        throttle_fields: dict[str, Any] = {}
        if throttle_key := _throttle_key(event):
            suppressed = self._throttle.record(*throttle_key)
            if suppressed is None:
                level, throttle_fields = logging.DEBUG, {"throttled": True}
            elif suppressed:
                throttle_fields = {"suppressed_count": suppressed}
        if level >= self._min_level:
            self._write(
                level, LOG_EVENTS[type(event)][0], non_empty_fields(event) | throttle_fields
            )

    def _write(self, level: int, event: str, keys: dict[str, Any]) -> None:
        try:
            self._logger.log(level, event, **keys)
            if self._lost_lines:
                self._logger.warning("log.lines_lost", lines=self._lost_lines)
        except OSError:
            self._lost_lines += 1
            raise
        self._lost_lines = 0


def level_of(event: TelemetryEvent) -> int:
    """The level of *event*: that of its kind, or a higher one if something went wrong."""
    default_level = LOG_EVENTS[type(event)][1]
    match event:
        case events.AttemptFinished(outcome=outcome) | events.HandlerFinished(outcome=outcome):
            return default_level if outcome is Outcome.SUCCEEDED else logging.INFO
        case events.BrokerConnectionChanged(problem=problem):
            return logging.WARNING if problem else default_level
        case events.MessagesPublished(outcome=publish_outcome):
            return default_level if publish_outcome is PublishOutcome.CONFIRMED else logging.WARNING
        case events.HandlerFailed(throttled=True):
            return logging.DEBUG
        case events.ProcessStopped(clean=False):
            return logging.WARNING
        case _:
            return default_level


def _throttle_key(event: TelemetryEvent) -> tuple[object, ...]:
    """What events of a flapping connection have in common; empty for other events."""
    match event:
        case events.DatabaseUnavailable() | events.DatabaseRecovered():
            return type(event), event.operation
        case events.BrokerConnectionChanged():
            return type(event), event.connection, event.state, bool(event.problem)
        case events.FeedWaits():
            return type(event), event.feed, event.sink
        case _:
            return ()


def non_empty_fields(event: TelemetryEvent) -> dict[str, Any]:
    """The fields of *event* that have a value."""
    values = {name: getattr(event, name) for name in _FIELD_NAMES[type(event)]}
    return {name: value for name, value in values.items() if value not in _OMITTED_VALUES}


def sanitize_values(
    _logger: object, _method: str, event_dict: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Redact and escape every text of a line."""
    return {
        key: _sanitized_traceback(value) if key == "exception" else _sanitized_value(value)
        for key, value in event_dict.items()
    }


def _sanitized_value(value: object) -> object:
    match value:
        case str():
            return sanitize_line(redact_secrets(str(value)))
        case int() if value.bit_length() < 64:  # the largest integers that orjson writes
            return value
        case float():
            return round(value, 6)
        case Mapping():
            return {_key_text(key): _sanitized_value(each) for key, each in value.items()}
        case Sequence():
            return [_sanitized_value(each) for each in value]
        case _:
            return None if value is None else sanitize_line(redact_secrets(repr(value)))


def _key_text(key: object) -> str:
    return sanitize_line("/".join(map(str, key)) if isinstance(key, tuple) else str(key))


def _sanitized_traceback(traceback_text: object) -> str:
    """Keep the lines of a traceback, each marked as part of it."""
    return "\n".join(
        f"  | {sanitize_line(redact_secrets(line))}"
        for line in str(traceback_text).splitlines()[-50:]
    )


def _render_json(_logger: object, _method: str, event_dict: MutableMapping[str, Any]) -> str:
    leading_keys = {key: event_dict[key] for key in ("timestamp", "level", "event")}
    return orjson.dumps({**leading_keys, **event_dict}).decode()


def _configure_standard_logging(stream: TextIO, min_level: int, renderer: Any) -> None:
    handler = logging.StreamHandler(stream)
    handler.addFilter(_says_something_new)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper("iso", utc=True),
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _format_exception,
                sanitize_values,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(min_level)
    for name, library_level in LIBRARY_LOG_LEVELS.items():
        logging.getLogger(name).setLevel(max(min_level, library_level))
    logging.raiseExceptions = False  # It would print a record that cannot be formatted.


def _says_something_new(record: logging.LogRecord) -> bool:
    is_library = record.name.partition(".")[0] in LIBRARY_LOG_LEVELS
    return not (is_library and str(record.msg).startswith(_SAID_BY_THE_ENGINE))


def _format_exception(
    _logger: object, _method: str, event_dict: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Add the exception to the line: without its text for libraries, which may quote a payload."""
    error = event_dict.pop("exc_info", None)
    if isinstance(error, tuple):
        error = error[1]
    is_library = str(event_dict.get("logger", "")).split(".", maxsplit=1)[0] in LIBRARY_LOG_LEVELS
    if is_library:
        event_dict["event"] = str(event_dict["event"]).split("\n", maxsplit=1)[0]
    if isinstance(error, BaseException):
        text = (
            events.describe_error(error)
            if is_library
            else "".join(traceback.format_exception(error))
        )
        event_dict["exception"] = text
    return event_dict
