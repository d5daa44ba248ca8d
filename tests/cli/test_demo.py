"""`saga-engine demo` without servers and settings."""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from saga_engine.cli.demo.feed_comparison import compare_feed
from saga_engine.cli.demo.shop import ShopResult
from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.feeds.cloud_event import encode_event
from saga_engine.protocol.message import Delivery
from tests.kit.command_line import REPOSITORY
from tests.kit.messages import make_delivery
from tests.kit.processes import child_pids, wait_for_exit

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("SAGA_ENGINE_")}
INTERRUPTED = "Interrupted. Everything that the demo had started is stopped."


async def run_demo(**environment: str) -> tuple[int | None, str]:
    """Run the demo in another directory; its exit code and what it has printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "saga_engine", "demo"),
        env={**CLEAN, **environment},
        cwd="/",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return process.returncode, out.decode()


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_the_demo_loses_and_duplicates_no_effect_and_no_event():
    code, out = await run_demo()
    assert code == 0, out
    effects, events, left_out = out.partition("\n\nNext:")[0].split("\n\n")[-3:]
    counts = {name.strip(): value for name, value in pairs(effects.splitlines()[1:])}
    assert counts["completed"] == "22"
    assert counts["compensated"] == "8"
    assert (counts["incidents"], counts["dead letters"]) == ("0", "1")
    assert int(counts["duplicates dropped"]) >= 5
    assert (counts["effects lost"], counts["effects duplicated"]) == ("0", "0")
    assert "with SIGKILL while runs are in flight" in out
    orders, read_model, feed, consumer = events.splitlines()[1:]
    assert orders == "  orders: 30 placed, 22 confirmed, 8 cancelled"
    assert read_model == "  read model: equals a replay"
    assert feed.startswith("  feed: 60 events, 0 lost, 0 out of order, 0 altered, ")
    assert consumer == "  consumer: 30 invoices, 0 not as the events say"
    needed = {"stream": "plugin rabbitmq_stream", "kafka": "saga-engine[kafka,avro]"}
    for name, server in needed.items():
        assert f"examples/shop/{name}_feeds.py" in left_out
        assert server in left_out


def pairs(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        name, value = line.rsplit(None, 1)
        yield name, value


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_a_read_model_that_no_replay_would_make_fails_the_demo(tmp_path):
    examples = tmp_path / "examples"
    shutil.copytree(REPOSITORY / "examples", examples)
    projections = examples / "shop" / "projections.py"
    source = projections.read_text()
    planted = source.replace('add={"orders": 1', 'add={"orders": 2')
    assert planted != source
    projections.write_text(planted)
    code, out = await run_demo(PYTHONPATH=str(tmp_path))
    assert code == 1, out
    assert "read model: differs from a replay in 3 rows" in out
    assert out.count("WRONG: shop_customer ") == 3


def test_each_part_of_the_shop_can_fail_the_demo():
    correct = ShopResult(
        placed=1,
        statuses={"confirmed": 1},
        differences=[],
        wrong_invoices=[],
        mismatches=[],
        feed=compare_feed([], []),
        invoices=1,
    )
    assert correct.is_correct
    wrong = ["order o-1 is wrong"]
    assert not replace(correct, differences=wrong).is_correct
    assert not replace(correct, wrong_invoices=wrong).is_correct
    assert not replace(correct, mismatches=wrong).is_correct
    assert not replace(correct, feed=compare_feed(EVENTS, [])).is_correct


def event_of(stream: str, version: int) -> Recorded:
    number = version + (10 if stream.endswith("2") else 0)
    return Recorded(
        stream=stream,
        version=version,
        position=number,
        type="order-placed",
        schema_version=1,
        recorded_at=datetime(2026, 11, 30, tzinfo=UTC),
        id=UUID(int=number),
        data={"number": number},
    )


EVENTS = [event_of("order-1", 1), event_of("order-2", 1), event_of("order-1", 2)]


def delivery_of(event: Recorded) -> Delivery:
    message = encode_event(event, UUID(int=8))
    delivery: Delivery = make_delivery(
        body=message.body,
        exchange=message.exchange,
        routing_key=message.routing_key,
        message_id=message.message_id,
        headers=dict(message.headers),
    )
    return delivery


def test_events_of_a_feed_may_be_repeated():
    first, other, second = map(delivery_of, EVENTS)
    found = compare_feed(EVENTS, [other, first, second, first, other])
    assert found.is_correct
    assert (found.events, found.repeated) == (3, 2)


def test_an_event_that_a_feed_has_lost_swapped_or_altered_is_found():
    first, other, second = map(delivery_of, EVENTS)
    renamed = replace(first, message_id=str(UUID(int=9)))
    foreign = [
        renamed,
        replace(first, headers={**first.headers, "ce-id": "9"}),
        replace(first, body=b"{}"),
    ]
    assert compare_feed(EVENTS, [first, second]).lost == 1
    assert compare_feed(EVENTS, [second, first, other]).out_of_order == 1
    assert compare_feed(EVENTS, [first, other, second, *foreign]).altered == 3
    for received in ([first, second], [second, first, other], [first, other, second, renamed]):
        assert not compare_feed(EVENTS, received).is_correct


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that an unprivileged user may enter; PostgreSQL runs as one if we are root."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("number", "line", "children"),
    [
        pytest.param(signal.SIGTERM, "placing 30 orders", {3}, marks=pytest.mark.long),
        pytest.param(signal.SIGINT, "placing 30 orders", {3}, marks=pytest.mark.long),
        pytest.param(signal.SIGKILL, "placing 30 orders", {3}, marks=pytest.mark.long),
        pytest.param(signal.SIGTERM, "placing 28 orders", {6}, marks=pytest.mark.long),
        pytest.param(signal.SIGINT, "killed projector", {5, 6}, marks=pytest.mark.long),
        pytest.param(signal.SIGKILL, "goes on, when", {6}, marks=pytest.mark.long),
    ],
)
async def test_a_signal_stops_everything_that_the_demo_started(directory, number, line, children):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "saga_engine", "demo"),
        env={**CLEAN, "TMPDIR": str(directory)},
        stdout=-1,
        stderr=-1,
        # Tests in the background of a shell ignore SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    async for printed in process.stdout:
        if line in printed.decode():
            break
    pids = child_pids(process.pid)
    assert len(pids) in children, "PostgreSQL, the participants, a worker; in the shop three more"
    process.send_signal(number)
    _, err = await process.communicate()
    assert process.returncode == EXIT_CODES[number]
    assert err.decode().strip() == ("" if number is signal.SIGKILL else INTERRUPTED)
    for child in pids:
        await wait_for_exit(child)
    assert (number is signal.SIGKILL) or not list(directory.iterdir())
