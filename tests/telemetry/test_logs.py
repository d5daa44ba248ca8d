"""One line per fact, that nobody can forge and that gives nothing away."""

import io
import json
import logging
import re
from collections.abc import Callable, Iterator

import pytest

from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.message import PublishOutcome
from saga_engine.settings import Settings
from saga_engine.telemetry import events, logs
from saga_engine.telemetry.events import Emitter, Observer
from saga_engine.telemetry.operations import Operation
from saga_engine.vocabulary import ConnectionState, Direction, OperatorActionKind, Outcome
from tests.telemetry.event_samples import EVENT_TYPES, SAMPLES, raise_error

IDENTITIES = ("run_id", "saga", "step", "attempt", "message_id", "correlation_id")
NASTY = "x\n2026-01-01T00:00:00Z [error    ] forged saga=other\r\x1b[2K\u202e\ud800"


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


Configure = Callable[..., tuple[Observer, io.StringIO]]


@pytest.fixture
def configure() -> Iterator[Configure]:
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    levels = {name: logging.getLogger(name).level for name in logs.LIBRARY_LOG_LEVELS}

    def configured(stream: io.StringIO | None = None, **settings: str):
        written = io.StringIO() if stream is None else stream
        return logs.configure_logging(Settings(**settings), written), written

    yield configured
    root.handlers[:], logging.raiseExceptions = handlers, raising
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def lines(written: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_each_fact_has_an_event_name_of_its_own():
    names = [name for name, _ in logs.LOG_EVENTS.values()]

    assert set(logs.LOG_EVENTS) == set(EVENT_TYPES)
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]+\.[a-z_]+", name) for name in names)


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("fact", SAMPLES, ids=lambda fact: type(fact).__name__)
def test_each_fact_is_one_line(configure, fact, form):
    sink, written = configure(log_format=form, log_level="debug")

    sink(fact)

    assert written.getvalue().count("\n") == 1
    assert logs.LOG_EVENTS[type(fact)][0] in written.getvalue()


def test_how_many_lines_were_lost_is_said_when_there_is_room_again(configure):
    class Full(io.StringIO):
        full = False

        def write(self, text: str) -> int:
            if self.full:
                raise BlockingIOError
            return super().write(text)

    stream = Full()
    sink, written = configure(stream, log_format="json")
    fact = events.ProcessReady(program="worker")
    sink(fact)
    stream.full = True
    for _ in range(3):
        with pytest.raises(BlockingIOError):
            sink(fact)
    stream.full = False
    sink(fact)
    sink(fact)
    said = [(line["event"], line.get("lines")) for line in lines(written)]
    ready = ("process.ready", None)
    assert said == [ready, ready, ("log.lines_lost", 3), ready]


@pytest.mark.parametrize("fact", SAMPLES, ids=lambda fact: type(fact).__name__)
def test_the_keys_of_a_line_are_the_names_of_the_fact(configure, fact):
    sink, written = configure(log_format="json", log_level="debug")

    sink(fact)

    [line] = lines(written)
    assert list(line)[:3] == ["timestamp", "level", "event"]
    for name in IDENTITIES:
        if getattr(fact, name, None):
            assert line[name] == getattr(fact, name)


def test_what_has_no_value_has_no_key_but_0_and_false_are_values(configure):
    sink, written = configure(log_format="json")

    sink(events.OperatorActionProcessed(action=OperatorActionKind.CANCEL, accepted=False))

    [line] = lines(written)
    assert line["accepted"] is False
    assert "run_id" not in line


def test_below_the_lowest_level_nothing_is_written(configure):
    sink, written = configure(log_format="json", log_level="warning")
    for fact in SAMPLES:
        sink(fact)

    assert {line["level"] for line in lines(written)} == {"warning", "error"}


def settled(outcome: Outcome) -> events.AttemptFinished:
    return events.AttemptFinished(
        saga="s", step="a", direction=Direction.ACTION, attempt=1, run_id="r", outcome=outcome
    )


@pytest.mark.parametrize(
    ("fact", "level"),
    [
        (settled(Outcome.SUCCEEDED), logging.DEBUG),
        (settled(Outcome.UNKNOWN), logging.INFO),
        (
            events.MessagesPublished(exchange="e", outcome=PublishOutcome.UNROUTABLE, messages=1),
            logging.WARNING,
        ),
        (
            events.BrokerConnectionChanged(
                connection="publish", state=ConnectionState.CONNECTING, generation=1, problem="cut"
            ),
            30,
        ),
        (events.ProcessStopped(program="worker", clean=False), logging.WARNING),
    ],
)
def test_the_level_rises_where_something_is_wrong(fact, level):
    assert logs.level_of(fact) == level


@pytest.mark.parametrize("form", ["json", "console"])
def test_nobody_can_forge_a_line_through_a_fact(configure, form):
    sink, written = configure(log_format=form)

    sink(
        events.MessageDeadLettered(
            queue=NASTY, reason=DeadLetterReason.TOO_DEEP, problem=NASTY, message_id=NASTY
        )
    )

    assert len(written.getvalue().splitlines()) == 1
    assert not set(written.getvalue()) & {"\r", "\x1b", "\u202e", "\ud800"}
    if form == "console":
        assert " saga=other" not in re.sub(r"'[^']*'", "", written.getvalue())


@pytest.mark.parametrize("form", ["json", "console"])
def test_nobody_can_forge_a_line_through_a_library(configure, form):
    _, written = configure(log_format=form)

    logging.getLogger("some.library").warning("got %s", NASTY)

    assert len(written.getvalue().splitlines()) == 1
    assert "\x1b" not in written.getvalue()


@pytest.mark.parametrize("form", ["json", "console"])
def test_passwords_do_not_show_whoever_writes_them(configure, form):
    sink, written = configure(log_format=form)
    url = "amqp://user:canary@host/"

    sink(
        events.BrokerConnectionChanged(
            connection="publish",
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


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("library", sorted(logs.LIBRARY_LOG_LEVELS))
def test_what_a_library_carries_does_not_show(configure, library, form):
    _, written = configure(log_format=form, log_level="debug")
    logger = logging.getLogger(f"{library}.deeper")

    if logs.LIBRARY_LOG_LEVELS[library] > logging.DEBUG:
        logger.debug("sending %r", b"canary")
    try:
        raise_error(ValueError("canary"))
    except ValueError:
        logger.exception("A task broke\nfuture: exception=ValueError('canary')")

    assert "canary" not in written.getvalue()
    assert "ValueError at " in written.getvalue()


def test_a_handlers_own_log_lines_keep_their_level_and_their_traceback(configure):
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


def test_every_line_of_a_traceback_is_marked_so_that_none_passes_for_another_event(configure):
    _, written = configure(log_format="console")

    try:
        raise_error(ValueError("x\n" + NASTY))
    except ValueError:
        logging.getLogger("user").exception("failed")

    first, *rest = written.getvalue().splitlines()
    assert "failed" in first
    assert rest
    assert all(line.startswith("  | ") for line in rest)


def test_a_record_that_cannot_be_formatted_is_not_dumped(configure, capfd):
    _, written = configure(log_format="json")

    logging.getLogger("user").info("%d", "canary")

    assert "canary" not in written.getvalue() + "".join(capfd.readouterr())


def test_configuring_twice_writes_each_line_once(configure):
    configure(log_format="json")
    _, written = configure(log_format="json")

    logging.getLogger("user").warning("once")

    assert [line["event"] for line in lines(written)] == ["once"]


def test_auto_is_json_unless_a_person_watches(configure):
    sink, file = configure(log_format="auto")
    sink(events.ProcessReady(program="worker"))
    watched, screen = configure(Screen(), log_format="auto")
    watched(events.ProcessReady(program="worker"))

    assert lines(file)[0]["event"] == "process.ready"
    assert "process.ready" in screen.getvalue()
    assert not screen.getvalue().startswith("{")


def test_numbers_beyond_json_and_odd_values_are_written_all_the_same(configure):
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


def test_a_stream_that_is_gone_harms_nobody(configure):
    stream = io.StringIO()
    sink, _ = configure(stream, log_format="json")
    stream.close()

    Emitter(sink)(events.ProcessReady(program="worker"))
    logging.getLogger("user").warning("nobody hears")


FLAPS = (
    events.DatabaseUnavailable(operation=Operation.BATCH, problem="PostgreSQL is away."),
    events.DatabaseRecovered(operation=Operation.PARTICIPANT, outage_s=0.01),
    events.BrokerConnectionChanged(
        connection="publish", state=ConnectionState.CONNECTING, generation=1, problem="It was lost."
    ),
)


@pytest.mark.parametrize("fact", FLAPS, ids=lambda fact: type(fact).__name__)
def test_a_connection_that_comes_and_goes_writes_a_bounded_number_of_lines(configure, fact):
    observe, written = configure(log_format="json", log_level="info")

    for _ in range(1_000):
        observe(fact)

    assert len(lines(written)) == logs.THROTTLE_BURST


def test_a_line_that_repeats_says_how_many_were_left_out(configure):
    observe, written = configure(log_format="json", log_level="debug", log_repeat="86400")
    for _ in range(8):
        observe(FLAPS[0])
    seen = observe._repeats._seen
    seen.update({kind: (0.0, count) for kind, (_, count) in seen.items()})  # a day later
    observe(FLAPS[0])

    told = lines(written)
    assert [line["level"] for line in told] == ["warning"] * 5 + ["debug"] * 3 + ["warning"]
    assert [line.get("throttled") for line in told[5:8]] == [True] * 3
    assert told[8]["suppressed_count"] == 3
