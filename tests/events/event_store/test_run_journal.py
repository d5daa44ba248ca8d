"""In the engine's database, runs are streams among the others, in one order with them."""

from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from saga_engine.decider.triggers import WakeUp
from saga_engine.events import Append, Events, Recorded
from saga_engine.events.event_store import positions, run_journal
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.event_store.log_page import LogFilter, read_page
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from tests.kit.event_database import connected, placed
from tests.kit.stored_runs import CHARGED, RESERVED, apply_trigger, insert_run
from tests.kit.stores import SqlRequesterStore

WAKE_UP = WakeUp()
ROWS = "SELECT run_id::text, revision, position, events FROM saga_engine.journal ORDER BY position"


@pytest.fixture
async def events(migrated_url: str) -> AsyncIterator[Events]:
    """A client of the engine's database."""
    async with Events(migrated_url, settings=Settings()) as client:
        yield client


async def store_runs_and_events(
    store: SqlRequesterStore, definition_id: int, events: Events
) -> list[str]:
    """
    Two runs and the stream of an order, one after another; the names of their streams.

    Each run is woken in vain a few times, which appends rows without events.
    """
    runs = []
    for number in range(2):
        async with store.transaction() as tx:
            runs.append((await insert_run(tx, definition_id)).run_id)
        await events.append(Append("order-1", [placed(number)]))
    for trigger in (WAKE_UP, WAKE_UP, RESERVED, WAKE_UP, CHARGED):
        for run_id in runs:
            async with store.transaction() as tx:
                await apply_trigger(tx, run_id, trigger)
            await events.append(Append("order-1", [placed()] * 2))
    return [*(f"run-{run_id}" for run_id in runs), "order-1"]


async def test_a_run_is_read_as_a_stream(
    sql_store: SqlRequesterStore, definition_id: int, events: Events, migrated_url: str
):
    first, *_ = await store_runs_and_events(sql_store, definition_id, events)
    found = [event async for event in events.read(first)]
    assert [event.type for event in found[:2]] == ["run_started", "attempt_started"]
    assert [(event.version, event.place) for event in found[:3]] == [(1, 0), (1, 1), (4, 0)]
    assert all(earlier.position < later.position for earlier, later in pairwise(found))
    assert {event.correlation_id for event in found} == {first.removeprefix("run-")}
    assert {event.causation_id for event in found} == {"m-1"}
    assert len({event.id for event in found}) == len(found)
    async with connected(migrated_url) as connection:
        rows = await connection.fetch(ROWS)
    assert found[0].position == rows[0]["position"]
    after_first_row = [event async for event in events.read(first, after=1)]
    assert after_first_row == [event for event in found if event.version > 1]
    assert [event async for event in events.read("run-of-nothing")] == []


async def test_runs_and_streams_are_read_in_one_order(
    sql_store: SqlRequesterStore, definition_id: int, events: Events
):
    names = await store_runs_and_events(sql_store, definition_id, events)
    everything = [event async for event in events.read_all()]
    assert all(earlier.position < later.position for earlier, later in pairwise(everything))
    for name in names:
        of_stream = [event for event in everything if event.stream == name]
        assert of_stream == [event async for event in events.read(name)]
    assert {event.stream for event in everything} == set(names)


async def test_a_reader_does_not_pass_an_open_transaction_of_a_worker(
    sql_store: SqlRequesterStore, definition_id: int, events: Events
):
    async with sql_store.transaction() as tx:
        run = await insert_run(tx, definition_id)
        done = await events.append(Append("order-1", [placed()]))
        assert [event async for event in events.read_all()] == []
    streams = [event.stream async for event in events.read_all()]
    assert streams == [*[f"run-{run.run_id}"] * (len(streams) - 1), "order-1"]
    assert await events.position() == done.position


@pytest.mark.parametrize("limits", [{"event_batch_size": 1}, {"event_window": 1}, {}])
@pytest.mark.parametrize("types", [None, ["attempt_started", "order-placed"]])
async def test_pages_of_any_size_have_each_event_once(
    sql_store: SqlRequesterStore,
    database: Database,
    definition_id: int,
    events: Events,
    limits: dict[str, int],
    types: list[str] | None,
):
    """Also when a page ends within a row of the journal."""
    await store_runs_and_events(sql_store, definition_id, events)
    expected = [event async for event in events.read_all(types=types)]
    settings = Settings.model_construct(**{**dict(Settings()), **limits})
    found: list[Recorded] = []
    async with database.transaction() as tx:
        log, after = await EventLog.load(tx), 0
        horizon = await positions.horizon(tx)
        while after < horizon:
            page = await read_page(
                tx, log, LogFilter.create(types, None), (after, horizon), settings
            )
            assert len(page.events) <= settings.event_batch_size
            found += page.events
            after = page.position
    assert found == expected


async def test_runs_are_selected_by_their_streams(
    sql_store: SqlRequesterStore, definition_id: int, events: Events
):
    first, second, _ = await store_runs_and_events(sql_store, definition_id, events)

    async def streams(*patterns: str) -> set[str]:
        return {event.stream async for event in events.read_all(streams=patterns)}

    assert await streams("run-*") == {first, second}
    assert await streams(first) == {first}
    assert await streams("order-*") == {"order-1"}


async def test_the_range_is_found_by_an_index(migrated_url: str):
    """Not by reading every month of the journal, which may have a billion rows."""
    sql, names = run_journal._READ_RANGE.positional
    values = {"after": "0", "until": "100", "max_events": "10", "max_bytes": "1000"}
    arguments = ", ".join(values.get(name, "NULL") for name in names)
    async with connected(migrated_url) as connection:
        await connection.execute("SET enable_seqscan = off")
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        await connection.execute(f"PREPARE read_range AS {sql}")
        rows = await connection.fetch(f"EXPLAIN EXECUTE read_range ({arguments})")
    plan = "\n".join(row[0] for row in rows)
    assert "Seq Scan" not in plan
    assert 'Index Cond: (("position" >= ' in plan


@pytest.mark.parametrize("table", ["journal", "journal_default"])
async def test_rows_that_a_tool_copies_are_announced(migrated_url, table):
    """Also into a partition, and in a session in which other triggers do not fire."""
    async with connected(migrated_url) as copying, copying.transaction():
        await copying.execute("SET LOCAL session_replication_role = replica")
        await copying.execute(
            f"INSERT INTO saga_engine.{table} VALUES (gen_random_uuid(), 1, now(), 1, 1, '[]')"
        )
        locks = await copying.fetchval(
            "SELECT count(*) FROM pg_locks"
            " WHERE locktype = 'advisory' AND classid::bigint >> 16 = 23147"
        )
    assert locks == 1
