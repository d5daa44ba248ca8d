"""Retention drops no month that a projection or a feed has not read, unless it does not move."""

import pytest

from saga_engine.events import Projection
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.feeds import feed_actions, feed_table
from saga_engine.events.feeds.feed import Sink
from saga_engine.events.feeds.feed_table import FeedKey
from saga_engine.events.projections import projection_table
from saga_engine.events.projections.projection_actions import pause
from saga_engine.events.read_models.read_models import READ_MODELS, register
from saga_engine.events.readers.operator_audit import Operator
from saga_engine.postgres.statement import text
from saga_engine.store import journal, partitions
from saga_engine.store.journal_readers import ReaderKind
from tests.kit.partitions import insert_finished_run
from tests.kit.projections import stored
from tests.kit.read_model import BY_ID, Placed

HOLD = 7 * 86_400.0
MONTH = "2020_01"
FEED = FeedKey("runs", Sink.EXCHANGE)
ANN = Operator("ann", "a test")


async def retain(database, hold=HOLD):
    return await partitions.maintain(database, retention_days=30, retention_hold=hold)


async def execute(database, sql, **parameters):
    async with database.transaction() as tx:
        return await tx.execute(text(sql), parameters)


async def move(database, table, position):
    await execute(
        database,
        f"UPDATE saga_engine.{table} SET position = :position, updated_at = clock_timestamp()",
        position=position,
    )


async def stand_still(database, table, days):
    """Let nothing of a table have moved for so many days."""
    await execute(
        database,
        f"UPDATE saga_engine.{table} SET updated_at = clock_timestamp() - make_interval(days =>"
        " CAST(:days AS integer))",
        days=days,
    )


@pytest.fixture
async def last_position(database, definition_id):
    """The last position of a month that has expired."""
    run_id = await insert_finished_run(database, definition_id)
    async with database.transaction() as tx:
        return (await journal.read(tx, run_id))[-1].position


@pytest.fixture
async def projections(database):
    async with database.transaction() as tx:
        await register(tx)


@pytest.fixture
async def feed(database):
    async with database.transaction() as tx:
        await feed_table.register(tx, [FEED], [FEED])


@pytest.mark.usefixtures("projections")
async def test_a_month_waits_for_a_projection_to_read_all_of_it(database, last_position):
    await move(database, "projection", last_position - 1)
    held = await retain(database)
    assert held.dropped == ()
    assert {(each.kind, each.name) for each in held.readers.held_by} == {
        (ReaderKind.PROJECTION, model.name) for model in READ_MODELS
    }
    await move(database, "projection", last_position)
    done = await retain(database)
    assert done.dropped == (MONTH,)
    assert (done.readers.held_by, done.readers.passed_over, done.readers.incomplete) == ([], [], ())
    async with database.transaction() as tx:
        assert await EventLog.runs_complete_from(tx) == last_position + 1
    assert (await stored(database, READ_MODELS[0].name)).missing_until is None


@pytest.mark.usefixtures("feed")
async def test_a_month_waits_for_a_feed_to_publish_all_of_it(database, last_position):
    await move(database, "feed", last_position - 1)
    held = await retain(database)
    assert held.dropped == ()
    [reader] = held.readers.held_by
    assert (reader.kind, reader.name, reader.position) == (
        ReaderKind.FEED,
        "runs",
        last_position - 1,
    )
    await move(database, "feed", last_position)
    assert (await retain(database)).dropped == (MONTH,)


@pytest.mark.usefixtures("projections")
async def test_one_that_is_paused_for_too_long_is_passed_over_and_marked(database, last_position):
    name, *others = [model.name for model in READ_MODELS]
    await move(database, "projection", last_position)
    await execute(
        database, "UPDATE saga_engine.projection SET position = 1 WHERE name = :name", name=name
    )
    async with database.transaction() as tx:
        await pause(tx, name, ANN)
    await stand_still(database, "projection", 6)
    held = await retain(database)
    assert (held.dropped, [each.name for each in held.readers.held_by]) == ((), [name])
    assert 6 * 86_400 <= held.readers.held_by[0].unmoved_s < HOLD
    await stand_still(database, "projection", 8)
    done = await retain(database)
    assert done.dropped == (MONTH,)
    assert [each.name for each in done.readers.passed_over] == [name]
    assert [*done.readers.incomplete] == [(ReaderKind.PROJECTION, name)]
    assert (await stored(database, name)).missing_until == last_position
    assert [(await stored(database, each)).missing_until for each in others] == [None, None]
    again = await retain(database)
    assert (again.readers.passed_over, [*again.readers.incomplete]) == (
        [],
        [(ReaderKind.PROJECTION, name)],
    )


@pytest.mark.usefixtures("feed")
async def test_a_feed_that_is_stopped_for_too_long_is_marked_until_it_is_rewound(
    database, last_position
):
    await execute(database, "UPDATE saga_engine.feed SET state = 'stopped'")
    await stand_still(database, "feed", 8)
    assert (await retain(database)).dropped == (MONTH,)
    async with database.transaction() as tx:
        [marked] = await feed_table.read(tx)
        assert marked.missing_until == last_position
        await feed_table.set_state(tx, FEED, feed_table.FeedState.ACTIVE, last_position)
        await feed_actions.rewind(tx, FEED, 0, ANN)
        assert [each.missing_until for each in await feed_table.read(tx)] == [None]


@pytest.mark.usefixtures("projections")
async def test_a_parked_stream_of_a_run_has_not_been_read(database, last_position):
    await move(database, "projection", last_position)
    await execute(
        database,
        "INSERT INTO saga_engine.parked_stream (projection, projection_version, stream,"
        " next_position, next_version) VALUES (:name, 1, 'run-x', 1, 1)",
        name=READ_MODELS[0].name,
    )
    assert (await retain(database)).dropped == ()
    await execute(
        database,
        "UPDATE saga_engine.parked_stream SET parked_at = clock_timestamp() - interval '8 days'",
    )
    assert (await retain(database)).dropped == (MONTH,)
    assert (await stored(database, READ_MODELS[0].name)).missing_until == last_position


@pytest.mark.usefixtures("feed")
async def test_a_stream_of_a_run_that_waits_for_a_webhook_has_not_been_read(
    database, last_position
):
    await move(database, "feed", last_position)
    await execute(
        database,
        "INSERT INTO saga_engine.feed_waiting_stream (feed, sink, stream, next_position,"
        " next_version, type, event_id, problem) VALUES (:name, :sink, 'run-x', 1, 1,"
        " 'run_started', gen_random_uuid(), 'refused')",
        name=FEED.name,
        sink=FEED.sink.value,
    )
    assert (await retain(database)).dropped == ()
    await execute(
        database,
        "UPDATE saga_engine.feed_waiting_stream"
        " SET first_failed_at = clock_timestamp() - interval '8 days'",
    )
    assert (await retain(database)).dropped == (MONTH,)
    async with database.transaction() as tx:
        [marked] = await feed_table.read(tx)
    assert marked.missing_until == last_position


@pytest.mark.usefixtures("last_position")
async def test_those_that_read_only_streams_hold_nothing(database):
    of_streams = Projection("orders", version=1, tables=[BY_ID])

    @of_streams.on(Placed)
    def placed(_event, _recorded) -> None:
        return None

    async with database.transaction() as tx:
        await projection_table.register(tx, [of_streams])
        await feed_table.register(tx, [FEED])
    done = await retain(database)
    assert (done.dropped, done.readers.held_by) == ((MONTH,), [])
    assert (await stored(database, "orders")).missing_until is None


@pytest.mark.usefixtures("projections")
async def test_a_damaged_last_row_does_not_end_retention(database, last_position):
    await execute(
        database,
        "UPDATE saga_engine.journal SET events = '{}' WHERE position = (SELECT max(position)"
        " FROM saga_engine.journal)",
    )
    await move(database, "projection", last_position)
    assert (await retain(database)).dropped == (MONTH,)


@pytest.mark.usefixtures("last_position")
async def test_without_a_projection_or_a_feed_a_month_is_dropped_at_once(database):
    done = await retain(database)
    assert done.dropped == (MONTH,)
    assert done.readers == partitions.ReaderReport()
