"""`saga-engine projector` as processes, on a real database."""

import json
import signal
from typing import Any

import pytest

from saga_engine.events import Events
from saga_engine.settings import Settings
from tests.kit.command_line import (
    exit_code_of,
    http_get,
    read_log_until,
    running_command,
    saga_engine,
)
from tests.kit.connections import raw_channel
from tests.kit.feeds import bind_queue, receive_from, stored_feed, wait_for_feed
from tests.kit.programs import wait_until_true
from tests.kit.projections import (
    append_one,
    append_orders,
    cancelled,
    check_read_model,
    placed,
    projection_database,
    stored,
    wait_for_position,
)

ORDERS = "tests.kit.projected_orders"
PUBLISHED = "tests.kit.published_orders"
SETTINGS: dict[str, Any] = {
    "projection_lease": "1",
    "projection_monitor_interval": "0.1",
    "http_cache_ttl": "0.01",
}


@pytest.fixture
async def database(migrated_url):
    async with projection_database(migrated_url) as database:
        yield database


@pytest.fixture
async def event_store(migrated_url):
    async with Events(migrated_url, settings=Settings()) as client:
        yield client


def projector(url, *modules, **settings):
    arguments = ("projector", *(modules or (ORDERS,)), "--port", "0")
    return running_command(*arguments, database_url=url, **SETTINGS, **settings)


async def address_of(process):
    listening = await read_log_until(process, "http.listening")
    return f"http://{listening['event'].split()[1]}"


async def metric_until(where, line):
    """Wait until the metrics have a line."""

    async def has_line():
        return line in (await http_get(f"{where}/metrics"))[1].splitlines()

    await wait_until_true(has_line, interval=0.05)


async def test_a_projector_fills_its_tables_and_reports_itself(event_store, database, migrated_url):
    async with projector(migrated_url) as process:
        where = await address_of(process)
        await append_orders(event_store, 20)
        position = await event_store.position()
        for name in ("orders", "history"):
            await wait_for_position(database, name, position)
        assert await http_get(f"{where}/readyz") == (200, '{"status":"ok"}\n')
        assert (await http_get(f"{where}/livez"))[0] == 200
        read = [each async for each in event_store.read_all()]
        await metric_until(
            where, f'saga_projection_events_total{{projection="orders"}} {len(read)}.0'
        )
        await metric_until(where, 'saga_projection_lag_events{projection="orders"} 0.0')
        await metric_until(where, 'saga_projection_state{projection="orders",state="active"} 1.0')
        await append_one(event_store, "order-1", placed("poison"))
        await metric_until(where, 'saga_projection_state{projection="orders",state="stopped"} 1.0')
        await metric_until(where, 'saga_projection_failures_total{projection="orders"} 1.0')
        assert (await http_get(f"{where}/readyz"))[0] == 200
        process.send_signal(signal.SIGTERM)
        log = [json.loads(line) for line in (await process.stderr.read()).splitlines()]
        assert await exit_code_of(process) == 0
    await check_read_model(database, read)
    events = [each["event"] for each in log]
    assert events[-2:] == ["process.stopping", "process.stopped"]
    [stopped] = [each for each in log if each["event"] == "projection.stopped"]
    assert (stopped["projection"], stopped["stream"]) == ("orders", "order-1")
    assert (await stored(database, "history")).owner is None


async def test_a_projector_publishes_feeds_beside_its_projections(
    event_store, database, migrated_url, broker_url
):
    async with raw_channel(broker_url) as channel:
        await bind_queue(channel, "billing", "order.order-placed")
        received = await receive_from(channel, "billing")
        async with projector(migrated_url, ORDERS, PUBLISHED, broker_url=broker_url) as process:
            where = await address_of(process)
            position = await append_one(event_store, "order-1", placed())
            await received.wait_for(1)
            await wait_for_feed(database, position)
            await wait_for_position(database, "orders", position)
            assert await http_get(f"{where}/readyz") == (200, '{"status":"ok"}\n')
            await metric_until(
                where,
                'saga_messages_published_total{exchange="saga.feed",outcome="confirmed"} 1.0',
            )
            await append_one(event_store, "order-1", cancelled())
            stopped = await read_log_until(process, "feed.stopped")
            process.send_signal(signal.SIGTERM)
            assert await exit_code_of(process) == 0
        received.check([each async for each in event_store.read_all(types=["order-placed"])])
    assert (stopped["feed"], stopped["stream"]) == ("orders", "order-1")
    assert (await stored_feed(database)).owner is None


@pytest.mark.long
async def test_another_projector_continues_after_a_kill(event_store, database, migrated_url):
    async with projector(migrated_url) as first:
        await read_log_until(first, "projection.acquired")
        async with projector(migrated_url) as second:
            await read_log_until(second, "process.ready")
            await append_orders(event_store, 10)
            await wait_for_position(database, "orders", await event_store.position())
            first.kill()
            await append_orders(event_store, 10, seed=1)
            await read_log_until(second, "projection.acquired")
            await wait_for_position(database, "orders", await event_store.position())
            second.send_signal(signal.SIGINT)
            assert await exit_code_of(second) == 0
    await check_read_model(database, [each async for each in event_store.read_all()])


async def test_a_projector_that_cannot_start_names_the_problem(migrated_url, database_url):
    cases = (
        ((), migrated_url, 2, "Name a module"),
        ((ORDERS,), "", 2, "SAGA_ENGINE_DATABASE_URL is not set"),
        (("examples.place_order.sagas",), migrated_url, 2, "declares no Projection"),
        (
            (f"{ORDERS}:missing",),
            migrated_url,
            2,
            "has no Projection, Feed or Aggregate named 'missing'",
        ),
        ((ORDERS,), database_url, 5, "saga-engine migrate"),
        ((PUBLISHED,), migrated_url, 2, "SAGA_ENGINE_BROKER_URL is not set"),
    )
    for modules, url, code, words in cases:
        ran = await saga_engine("projector", *modules, database_url=url, http_port="0")
        assert (ran.exit_code, words in ran.err) == (code, True), ran
        assert "Traceback" not in ran.err


HANGING = """
import itertools
from sqlalchemy import Column, MetaData, Table, Text
from saga_engine.events import Change, Projection, upsert

notes = Table("note", MetaData(), Column("id", Text, primary_key=True))
others = Table("other", MetaData(), Column("id", Text, primary_key=True))
hanging = Projection("hanging", version=1, tables=[notes])
healthy = Projection("healthy", version=1, tables=[others])

@hanging.on("order-placed")
def spin(data, recorded) -> Change:
    if data["customer"] == "spin":
        while True:
            pass
    if data["customer"] == "hang":
        any(itertools.repeat(False))  # in C, without handling signals
    return upsert(notes, key={"id": recorded.stream})

@healthy.on("order-placed")
def note(data, recorded) -> Change:
    return upsert(others, key={"id": recorded.stream})
"""


@pytest.fixture
async def hanging(tmp_path, database):
    (tmp_path / "hanging.py").write_text(HANGING)
    async with database.transaction() as tx:
        for table in ("note", "other"):
            await tx.connection.exec_driver_sql(f"CREATE TABLE {table} (id text PRIMARY KEY)")
    return tmp_path


def hanging_projector(folder, url):
    limits = {"mapping_timeout": "0.3", "mapping_hard_timeout": "2"}
    return running_command(
        *("projector", "hanging", "--port", "0"),
        cwd=folder,
        database_url=url,
        **{**SETTINGS, **limits},
    )


async def test_a_function_that_does_not_return_stops_its_projection_alone(
    event_store, database, migrated_url, hanging
):
    await append_one(event_store, "order-1", placed("spin"))
    position = await append_one(event_store, "order-2", placed())
    async with hanging_projector(hanging, migrated_url) as process:
        stopped = await read_log_until(process, "projection.stopped")
        assert stopped["projection"] == "hanging"
        assert "spin did not return within 0.3 s" in stopped["problem"]
        await wait_for_position(database, "healthy", position)
        process.send_signal(signal.SIGTERM)
        assert await exit_code_of(process) == 0


async def test_a_function_that_cannot_be_interrupted_is_named_and_ends_the_process(
    event_store, migrated_url, hanging
):
    await append_one(event_store, "order-1", placed("hang"))
    async with hanging_projector(hanging, migrated_url) as process:
        hung = await read_log_until(process, "user_code.hung")
        assert (hung["function"], hung["command"]) == ("spin", "order-placed")
        assert await exit_code_of(process) == -signal.SIGKILL
