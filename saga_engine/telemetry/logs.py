"""
Facts as log lines, and everyone else's log lines beside them.

One event per fact, by the dotted name in EVENTS; the fact's fields are the line's keys, so run_id,
saga, step, attempt, message_id and correlation_id are always called that. JSON, or a line for
people on a terminal. What libraries and handlers write to `logging` comes out in the same form.
Nothing that was sent to us can end a line, show a password or grow without bound.
"""

import logging
import sys
import traceback
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import fields
from typing import Any, TextIO

import orjson
import structlog

from saga_engine.settings import Settings
from saga_engine.telemetry import events
from saga_engine.telemetry.events import Fact, Observer
from saga_engine.telemetry.redaction import one_line, redacted
from saga_engine.telemetry.throttle import Repeats
from saga_engine.vocabulary import Outcome

EVENTS: Mapping[type[Fact], tuple[str, int]] = {
    events.DefinitionRegistered: ("definition.registered", logging.INFO),
    events.HandlersRegistered: ("handlers.registered", logging.INFO),
    events.RunStarted: ("run.started", logging.INFO),
    events.RunCompensating: ("run.compensating", logging.INFO),
    events.RunFinished: ("run.finished", logging.INFO),
    events.AttemptSent: ("attempt.sent", logging.DEBUG),
    events.AttemptSettled: ("attempt.settled", logging.DEBUG),
    events.RetryScheduled: ("retry.scheduled", logging.INFO),
    events.IncidentOpened: ("incident.opened", logging.ERROR),
    events.IncidentResolved: ("incident.resolved", logging.INFO),
    events.OperatorAnswered: ("operator.answered", logging.INFO),
    events.MessageIgnored: ("message.ignored", logging.DEBUG),
    events.MessageParked: ("message.parked", logging.WARNING),
    events.MessageDeadLettered: ("message.dead_lettered", logging.WARNING),
    events.BatchProcessed: ("batch.processed", logging.DEBUG),
    events.MessagesPublished: ("messages.published", logging.DEBUG),
    events.MessagesConsumed: ("messages.consumed", logging.DEBUG),
    events.LinkChanged: ("link.changed", logging.INFO),
    events.DatabaseTroubled: ("database.troubled", logging.WARNING),
    events.DatabaseRecovered: ("database.recovered", logging.INFO),
    events.FaultFound: ("fault.found", logging.ERROR),
    events.CodeFailed: ("code.failed", logging.ERROR),
    events.CodeStuck: ("code.stuck", logging.ERROR),
    events.CodeContained: ("code.contained", logging.ERROR),
    events.OverseerLost: ("overseer.lost", logging.WARNING),
    events.OverseerStarted: ("overseer.started", logging.INFO),
    events.ProcessReady: ("process.ready", logging.INFO),
    events.ProcessDraining: ("process.draining", logging.INFO),
    events.ProcessStopped: ("process.stopped", logging.INFO),
    events.HandlerFinished: ("handler.finished", logging.DEBUG),
    events.HandlerFailed: ("handler.failed", logging.WARNING),
    events.HandlerAbandoned: ("handler.abandoned", logging.WARNING),
    events.BarrierHit: ("barrier.hit", logging.DEBUG),
    events.BacklogCounted: ("backlog.counted", logging.DEBUG),
    events.LoopMeasured: ("loop.measured", logging.DEBUG),
    events.ObserverFailed: ("observer.failed", logging.ERROR),
}
"""Each fact's event name, and its level when nothing is wrong (see `level_of`)."""

LIBRARIES: Mapping[str, int] = {
    "aio_pika": logging.WARNING,  # below it they write what they send and receive
    "aiormq": logging.WARNING,
    "pamqp": logging.WARNING,
    "asyncio": logging.INFO,
    "sqlalchemy": logging.WARNING,  # below it they write statements with their values
    "alembic": logging.INFO,
    "uvicorn": logging.ERROR,  # a warning there is a stranger's malformed request
}
"""The lowest level of each library that is ever written, and whose exceptions lose their text."""

BURST = 5
"""
Lines of one kind about a connection that are written in `log_repeat` seconds: an outage has two or
three, and its end is to be seen; more of them say nothing new.
"""

_FIELDS = {kind: tuple(field.name for field in fields(kind)) for kind in EVENTS}
_EMPTY: tuple[object, ...] = (None, "")


def configure(settings: Settings, stream: TextIO | None = None) -> Observer:
    """
    Send `logging` to *stream* (stderr), and return the observer that writes facts to it.

    `log_level` bounds both, `log_format` chooses the form. Replaces the handlers of the root
    logger, so it belongs to programs; whoever embeds the engine observes facts instead.
    """
    stream = sys.stderr if stream is None else stream
    lowest = logging.getLevelNamesMapping()[settings.log_level.upper()]
    console = settings.log_format == "console" or (
        settings.log_format == "auto" and stream.isatty()
    )
    shape = structlog.dev.ConsoleRenderer(colors=stream.isatty()) if console else _json
    _bridge(stream, lowest, shape)
    return LogSink(
        structlog.wrap_logger(
            structlog.WriteLogger(stream),
            processors=[
                clean,
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper("iso", utc=True),
                shape,
            ],
            wrapper_class=structlog.make_filtering_bound_logger(lowest),
        ),
        lowest,
        Repeats(settings.log_repeat, burst=BURST),
    )


class LogSink:
    """
    Writes each fact that reaches the lowest level as one line.

    Connections that come and go many times a second write BURST lines of a kind in `log_repeat`
    seconds; the others are counted, and written at debug.
    """

    def __init__(self, logger: Any, lowest: int, repeats: Repeats) -> None:
        self._logger = logger
        self._lowest = lowest
        self._repeats = repeats
        self._lost = 0

    def __call__(self, fact: Fact) -> None:
        """Write *fact*; keys without a value are left out. OSError: the stream does not take it."""
        level = level_of(fact)
        more: dict[str, Any] = {}
        if kind := _connection(fact):
            repeats = self._repeats.of(*kind)
            level = logging.DEBUG if repeats is None else level
            more = {"again": True} if repeats is None else {"repeats": repeats} if repeats else {}
        if level >= self._lowest:
            self._write(level, EVENTS[type(fact)][0], keys_of(fact) | more)

    def _write(self, level: int, event: str, keys: dict[str, Any]) -> None:
        try:
            self._logger.log(level, event, **keys)
            if self._lost:
                self._logger.warning("log.lost", lines=self._lost)
        except OSError:
            self._lost += 1
            raise
        self._lost = 0


def level_of(fact: Fact) -> int:
    """A fact's level: that of its kind, raised where this one is not what one hopes for."""
    usual = EVENTS[type(fact)][1]
    match fact:
        case events.AttemptSettled(outcome=outcome) | events.HandlerFinished(outcome=outcome):
            return usual if outcome is Outcome.SUCCEEDED else logging.INFO
        case events.LinkChanged(problem=problem):
            return logging.WARNING if problem else usual
        case events.MessagesPublished(outcome=said):
            return usual if said == "confirmed" else logging.WARNING
        case events.HandlerFailed(again=True):
            return logging.DEBUG
        case events.ProcessStopped(clean=False):
            return logging.WARNING
        case _:
            return usual


def _connection(fact: Fact) -> tuple[object, ...]:
    """What a fact about a connection that comes and goes has in common with others."""
    match fact:
        case events.DatabaseTroubled() | events.DatabaseRecovered():
            return type(fact), fact.operation
        case events.LinkChanged():
            return type(fact), fact.role, fact.phase, bool(fact.problem)
        case _:
            return ()


def keys_of(fact: Fact) -> dict[str, Any]:
    """The fields of a fact that have a value."""
    values = {name: getattr(fact, name) for name in _FIELDS[type(fact)]}
    return {name: value for name, value in values.items() if value not in _EMPTY}


def clean(
    _logger: object, _method: str, line: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Make every text safe to show."""
    return {
        key: _cleaned_trace(value) if key == "exception" else _cleaned(value)
        for key, value in line.items()
    }


def _cleaned(value: object) -> object:
    match value:
        case str():
            return one_line(redacted(str(value)))
        case int() if value.bit_length() < 64:  # the most that orjson writes
            return value
        case float():
            return round(value, 6)
        case Mapping():
            return {_name(key): _cleaned(each) for key, each in value.items()}
        case Sequence():
            return [_cleaned(each) for each in value]
        case _:
            return None if value is None else one_line(redacted(repr(value)))


def _name(key: object) -> str:
    return one_line("/".join(map(str, key)) if isinstance(key, tuple) else str(key))


def _cleaned_trace(trace: object) -> str:
    """A traceback keeps its lines, each marked as part of one."""
    return "\n".join(f"  | {one_line(redacted(line))}" for line in str(trace).splitlines()[-50:])


def _json(_logger: object, _method: str, line: MutableMapping[str, Any]) -> str:
    first = {key: line[key] for key in ("timestamp", "level", "event")}
    return orjson.dumps({**first, **line}).decode()


def _bridge(stream: TextIO, lowest: int, shape: Any) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper("iso", utc=True),
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _exception,
                clean,
                shape,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(lowest)
    for name, least in LIBRARIES.items():
        logging.getLogger(name).setLevel(max(lowest, least))
    logging.raiseExceptions = False  # A record that cannot be formatted would be dumped as it is.


def _exception(
    _logger: object, _method: str, line: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Put an exception on the line: of a library without its text, which may quote a payload."""
    error = line.pop("exc_info", None)
    if isinstance(error, tuple):
        error = error[1]
    library = str(line.get("logger", "")).split(".", maxsplit=1)[0] in LIBRARIES
    if library:
        line["event"] = str(line["event"]).split("\n", maxsplit=1)[0]
    if isinstance(error, BaseException):
        shown = events.described(error) if library else "".join(traceback.format_exception(error))
        line["exception"] = shown
    return line
