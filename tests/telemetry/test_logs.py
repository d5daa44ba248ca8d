"""Each event is one log line, which no message can forge and which shows no secret."""

import io
import json
import logging
import re
from collections.abc import Callable, Iterator

import pytest

from saga_engine.amqp.handshake import open_connection
from saga_engine.embedded.server_process import free_port
from saga_engine.errors import BrokerUnavailable
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.message import PublishOutcome
from saga_engine.settings import Settings
from saga_engine.telemetry import events, logs
from saga_engine.telemetry.events import Emitter, Observer
from saga_engine.telemetry.operations import Operation
from saga_engine.vocabulary import (
    ConnectionRole,
    ConnectionState,
    Direction,
    OperatorActionKind,
    Outcome,
    Program,
)
from tests.telemetry.event_samples import EVENT_TYPES, SAMPLES, raise_error

ID_FIELDS = ("run_id", "saga", "step", "attempt", "message_id", "correlation_id")
HOSTILE_TEXT = "x\n2026-01-01T00:00:00Z [error    ] forged saga=other\r\x1b[2K\u202e\ud800"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


Configure = Callable[..., tuple[Observer, io.StringIO]]


@pytest.fixture
def configure() -> Iterator[Configure]:
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    levels = {name: logging.getLogger(name).level for name in logs.LIBRARY_LOG_LEVELS}

    def configured(stream: io.StringIO | None = None, process: int | None = None, **settings: str):
        written = io.StringIO() if stream is None else stream
        observer = logs.configure_logging(Settings(**settings), written, process=process)
        return observer, written

    yield configured
    root.handlers[:], logging.raiseExceptions = handlers, raising
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def lines(written: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_each_event_has_a_unique_log_name():
    names = [name for name, _ in logs.LOG_EVENTS.values()]

    assert set(logs.LOG_EVENTS) == set(EVENT_TYPES)
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z_]+\.[a-z_]+", name) for name in names)


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("event", SAMPLES, ids=lambda event: type(event).__name__)
def test_each_event_is_one_line(configure, event, log_format):
    sink, written = configure(log_format=log_format, log_level="debug")

    sink(event)

    assert written.getvalue().count("\n") == 1
    assert logs.LOG_EVENTS[type(event)][0] in written.getvalue()


def test_the_number_of_lost_lines_is_logged_afterwards(configure):
    class Full(io.StringIO):
        full = False

        def write(self, text: str) -> int:
            if self.full:
                raise BlockingIOError
            return super().write(text)

    stream = Full()
    sink, written = configure(stream, log_format="json")
    event = events.ProcessReady(program=Program.WORKER)
    sink(event)
    stream.full = True
    for _ in range(3):
        with pytest.raises(BlockingIOError):
            sink(event)
    stream.full = False
    sink(event)
    sink(event)
    logged = [(line["event"], line.get("lines")) for line in lines(written)]
    ready = ("process.ready", None)
    assert logged == [ready, ready, ("log.lines_lost", 3), ready]


@pytest.mark.parametrize("event", SAMPLES, ids=lambda event: type(event).__name__)
def test_the_keys_of_a_line_are_the_fields_of_the_event(configure, event):
    sink, written = configure(log_format="json", log_level="debug")

    sink(event)

    [line] = lines(written)
    assert list(line)[:3] == ["timestamp", "level", "event"]
    for name in ID_FIELDS:
        if getattr(event, name, None):
            assert line[name] == getattr(event, name)


def test_empty_fields_are_omitted_but_not_0_and_false(configure):
    sink, written = configure(log_format="json")

    sink(events.OperatorActionProcessed(action=OperatorActionKind.CANCEL, accepted=False))

    [line] = lines(written)
    assert line["accepted"] is False
    assert "run_id" not in line


def test_lines_below_the_level_are_not_written(configure):
    sink, written = configure(log_format="json", log_level="warning")
    for event in SAMPLES:
        sink(event)

    assert {line["level"] for line in lines(written)} == {"warning", "error"}


def attempt_finished(outcome: Outcome) -> events.AttemptFinished:
    return events.AttemptFinished(
        saga="s", step="a", direction=Direction.ACTION, attempt=1, run_id="r", outcome=outcome
    )


@pytest.mark.parametrize(
    ("event", "level"),
    [
        (attempt_finished(Outcome.SUCCEEDED), logging.DEBUG),
        (attempt_finished(Outcome.UNKNOWN), logging.INFO),
        (
            events.MessagesPublished(exchange="e", outcome=PublishOutcome.UNROUTABLE, messages=1),
            logging.WARNING,
        ),
        (
            events.BrokerConnectionChanged(
                connection=ConnectionRole.PUBLISH,
                state=ConnectionState.CONNECTING,
                generation=1,
                problem="cut",
            ),
            30,
        ),
        (events.ProcessStopped(program=Program.WORKER, clean=False), logging.WARNING),
    ],
)
def test_the_level_is_higher_when_something_is_wrong(event, level):
    assert logs.level_of(event) == level


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_an_event_cannot_forge_a_line(configure, log_format):
    sink, written = configure(log_format=log_format)

    sink(
        events.MessageDeadLettered(
            queue=HOSTILE_TEXT,
            reason=DeadLetterReason.TOO_DEEP,
            problem=HOSTILE_TEXT,
            message_id=HOSTILE_TEXT,
        )
    )

    assert len(written.getvalue().splitlines()) == 1
    assert not set(written.getvalue()) & {"\r", "\x1b", "\u202e", "\ud800"}
    if log_format == "console":
        assert " saga=other" not in re.sub(r"'[^']*'", "", written.getvalue())


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_library_cannot_forge_a_line(configure, log_format):
    _, written = configure(log_format=log_format)

    logging.getLogger("some.library").warning("got %s", HOSTILE_TEXT)

    assert len(written.getvalue().splitlines()) == 1
    assert "\x1b" not in written.getvalue()


async def test_a_library_adds_no_line_to_what_the_engine_says(configure):
    _, written = configure()
    with pytest.raises(BrokerUnavailable):
        await open_connection(f"amqp://127.0.0.1:{free_port()}/", ConnectionRole.CONSUME, 5.0)
    logging.getLogger("sqlalchemy.pool.impl.AsyncAdaptedQueuePool").error(
        "Exception closing connection %r", object()
    )
    logging.getLogger("user").error("Exception closing connection %r", 7)

    assert [each["event"] for each in lines(written)] == ["Exception closing connection 7"]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_passwords_are_redacted_in_every_line(configure, log_format):
    sink, written = configure(log_format=log_format)
    url = "amqp://user:canary@host/"

    sink(
        events.BrokerConnectionChanged(
            connection=ConnectionRole.PUBLISH,
            state=ConnectionState.CONNECTING,
            generation=0,
            problem=f"no {url}",
        )
    )
    logging.getLogger("user").error("cannot reach %s", url)
    try:
        raise_error(ValueError(url))
    except ValueError:
        logging.getLogger("user").exception("failed")

    assert "canary" not in written.getvalue()
    assert written.getvalue().count("***") == 3


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("library", sorted(logs.LIBRARY_LOG_LEVELS))
def test_payloads_in_log_lines_of_libraries_are_not_shown(configure, library, log_format):
    _, written = configure(log_format=log_format, log_level="debug")
    logger = logging.getLogger(f"{library}.deeper")

    if logs.LIBRARY_LOG_LEVELS[library] > logging.DEBUG:
        logger.debug("sending %r", b"canary")
    try:
        raise_error(ValueError("canary"))
    except ValueError:
        logger.exception("A task broke\nfuture: exception=ValueError('canary')")

    assert "canary" not in written.getvalue()
    assert "ValueError at " in written.getvalue()


def test_log_lines_of_handlers_keep_level_and_traceback(configure):
    _, written = configure(log_format="json")
    logger = logging.getLogger("shop.payments")

    logger.info("charged %s", "card")
    try:
        raise_error(ValueError("no card"))
    except ValueError:
        logger.exception("failed")

    info, error = lines(written)
    assert info["event"] == "charged card"
    assert info["logger"] == "shop.payments"
    assert "ValueError: no card" in str(error["exception"])


def test_each_line_of_a_traceback_is_marked(configure):
    _, written = configure(log_format="console")

    try:
        raise_error(ValueError("x\n" + HOSTILE_TEXT))
    except ValueError:
        logging.getLogger("user").exception("failed")

    first, *rest = written.getvalue().splitlines()
    assert "failed" in first
    assert rest
    assert all(line.startswith("  | ") for line in rest)


def test_a_record_that_cannot_be_formatted_is_not_shown(configure, capfd):
    _, written = configure(log_format="json")

    logging.getLogger("user").info("%d", "canary")

    assert "canary" not in written.getvalue() + "".join(capfd.readouterr())


def test_configuring_twice_writes_each_line_once(configure):
    configure(log_format="json")
    _, written = configure(log_format="json")

    logging.getLogger("user").warning("once")

    assert [line["event"] for line in lines(written)] == ["once"]


def test_the_auto_format_is_json_unless_on_a_terminal(configure):
    sink, file = configure(log_format="auto")
    sink(events.ProcessReady(program=Program.WORKER))
    sink, terminal = configure(Terminal(), log_format="auto")
    sink(events.ProcessReady(program=Program.WORKER))

    assert lines(file)[0]["event"] == "process.ready"
    assert "process.ready" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")


def test_values_that_json_cannot_express_are_written_as_text(configure):
    sink, written = configure(log_format="json", log_level="debug")

    sink(
        events.HandlerFinished(
            command="c", outcome=Outcome.SUCCEEDED, duration_s=float("nan"), attempt=2**70
        )
    )
    sink(events.BacklogCounted(runs={("a\nb", "running"): 1}))

    first, second = lines(written)
    assert first["attempt"] == str(2**70)
    assert second["runs"] == {"a\\nb/running": 1}


def test_a_closed_stream_harms_nothing(configure):
    stream = io.StringIO()
    sink, _ = configure(stream, log_format="json")
    stream.close()

    Emitter(sink)(events.ProcessReady(program=Program.WORKER))
    logging.getLogger("user").warning("into a closed stream")


FLAPS = (
    events.DatabaseUnavailable(operation=Operation.BATCH, problem="PostgreSQL is unavailable."),
    events.DatabaseRecovered(operation=Operation.PARTICIPANT, outage_s=0.01),
    events.BrokerConnectionChanged(
        connection=ConnectionRole.PUBLISH,
        state=ConnectionState.CONNECTING,
        generation=1,
        problem="It was lost.",
    ),
)


@pytest.mark.parametrize("event", FLAPS, ids=lambda event: type(event).__name__)
def test_a_flapping_connection_writes_a_bounded_number_of_lines(configure, event):
    observe, written = configure(log_format="json", log_level="info")

    for _ in range(1_000):
        observe(event)

    assert len(lines(written)) == logs.THROTTLE_BURST


def test_a_throttled_line_has_the_number_of_suppressed_ones(configure):
    observe, written = configure(
        log_format="json", log_level="debug", log_throttle_interval="86400"
    )
    for _ in range(8):
        observe(FLAPS[0])
    windows = observe._throttle._windows
    windows.update({kind: (0.0, count) for kind, (_, count) in windows.items()})  # a day later
    observe(FLAPS[0])

    logged = lines(written)
    assert [line["level"] for line in logged] == ["warning"] * 5 + ["debug"] * 3 + ["warning"]
    assert [line.get("throttled") for line in logged[5:8]] == [True] * 3
    assert logged[8]["suppressed_count"] == 3


def test_each_line_of_a_supervised_process_has_its_number(configure):
    observer, written = configure(process=2, log_format="json")
    observer(events.WatchdogRestarted())
    logging.getLogger("a library").warning("slow")

    assert [(line["event"], line["process"]) for line in lines(written)] == [
        ("watchdog.restarted", 2),
        ("slow", 2),
    ]
