"""A projector applies each event once and in order, across processes and failures."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table
from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.errors import Conflict, DefinitionError, NotFound, SchemaMismatch, TimedOut
from saga_engine.events import Append, Events, Recorded
from saga_engine.events.projections.projection import Projection
from saga_engine.events.projections.projection_table import ProjectionState
from saga_engine.events.projections.projector import Projector
from saga_engine.settings import Settings
from saga_engine.telemetry.events import (
    DatabaseUnavailable,
    ProjectionAcquired,
    ProjectionStopped,
    StreamParked,
)
from tests.kit.event_database import connected
from tests.kit.events import EventRecorder
from tests.kit.projections import (
    append_one,
    append_orders,
    cancelled,
    check_read_model,
    placed,
    projection_database,
    rows,
    running_projector,
    stored,
    wait_for_position,
)
from tests.kit.read_model import (
    BY_ID,
    HISTORY,
    Cancelled,
    Placed,
    history_projection,
    orders_projection,
)

OTHER = Table("others", MetaData(), Column("id", Integer, primary_key=True))


@pytest.fixture
async def database(event_url):
    async with projection_database(event_url) as database:
        yield database


@pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.long), 7, 5000])
async def test_tables_have_what_the_events_say(events, event_url, database, batch_size):
    await append_orders(events, 40)
    both = [orders_projection(), history_projection()]
    async with running_projector(event_url, both, projection_batch_size=batch_size):
        await append_orders(events, 20, seed=1)
        for projection in both:
            await wait_for_position(database, projection.name, await events.position())
    read = [each async for each in events.read_all()]
    await check_read_model(database, read)
    history = [what for _, what in sorted(await rows(database, "order_history"))]
    assert history == [f"{e.stream} {e.data.get('customer', e.data.get('reason'))}" for e in read]


async def test_another_process_continues_from_the_checkpoint(events, event_url, database):
    for seed in range(4):
        async with running_projector(event_url, [orders_projection()]) as emitted:
            (acquired,) = await emitted.wait_for(ProjectionAcquired)
            await append_orders(events, 5, seed=seed)
            await wait_for_position(database, "orders", await events.position())
        assert (await stored(database, "orders")).owner is None
        assert (acquired.position == 0) is (seed == 0)
    await check_read_model(database, [each async for each in events.read_all()])


async def test_one_process_at_a_time_runs_a_projection(events, event_url, database):
    projections, settings = [orders_projection()], {"projection_lease": 60.0}
    async with running_projector(event_url, projections, **settings) as first:
        await first.wait_for(ProjectionAcquired)
        async with running_projector(event_url, projections, **settings) as second:
            await append_orders(events, 10)
            await wait_for_position(database, "orders", await events.position())
            assert not second.matching(ProjectionAcquired)
    async with running_projector(event_url, [orders_projection()]) as third:
        await third.wait_for(ProjectionAcquired)
    await check_read_model(database, [each async for each in events.read_all()])


async def test_events_that_a_projection_does_not_handle_move_its_checkpoint(
    events, event_url, database
):
    projection = Projection("placed_only", version=1, tables=[BY_ID])

    @projection.on(Placed)
    def ignore(event, recorded) -> None:
        return None

    async with running_projector(event_url, [projection]):
        for _ in range(3):
            position = await append_one(events, "order-1", cancelled())
            await wait_for_position(database, "placed_only", position)


@pytest.mark.parametrize("place", [0, 50, 99])
@pytest.mark.parametrize("customer", ["poison", "refused\x7f"])
async def test_an_event_that_cannot_be_applied_stops_its_projection_alone(
    events, event_url, database, place, customer
):
    """In the function or in PostgreSQL; first, in the middle and last of a batch."""
    async with database.transaction() as tx:
        check = "ALTER TABLE order_by_id ADD CHECK (customer NOT LIKE 'refused%')"
        await tx.connection.exec_driver_sql(check)
    customers = ["ada"] * 100
    customers[place] = customer
    last = [await append_one(events, f"order-{n}", placed(c)) for n, c in enumerate(customers)][-1]
    both = [orders_projection(), history_projection()]
    async with running_projector(event_url, both) as emitted:
        (stopped,) = await emitted.wait_for(ProjectionStopped)
        await wait_for_position(database, "history", last)
    read = [each async for each in events.read_all()]
    assert stopped.position == read[place].position
    assert "raised ValueError at" in stopped.problem or "23514" in stopped.problem
    assert customer not in stopped.problem
    found = await stored(database, "orders")
    assert (found.state, found.position) == (ProjectionState.STOPPED, stopped.position - 1)
    await check_read_model(database, read[:place])
    assert len(await rows(database, "order_history")) == 100


async def test_a_projector_that_starts_reports_a_projection_that_is_stopped(
    events, event_url, database
):
    position = await append_one(events, "order-1", placed("poison"))
    async with running_projector(event_url, [orders_projection()]) as emitted:
        (stopped,) = await emitted.wait_for(ProjectionStopped)
    async with running_projector(event_url, [orders_projection()]) as emitted:
        (again,) = await emitted.wait_for(ProjectionStopped)
    assert again == stopped
    assert again.position == position
    assert again.next_command == "saga-engine projections show orders --version 1"


async def test_a_parked_stream_waits_and_others_go_on(events, event_url, database):
    await append_one(events, "order-1", placed("ada"), placed("poison"), placed("grace"))
    await append_one(events, "order-2", placed("ada"))
    last = await append_one(events, "order-1", cancelled())
    projection = orders_projection(on_poison="park-stream")
    async with running_projector(event_url, [projection]) as emitted:
        (parked,) = await emitted.wait_for(StreamParked)
        await wait_for_position(database, "orders", last)
        last = await append_one(events, "order-1", placed("ada"))
        last = await append_one(events, "order-3", placed("ada"))
        await wait_for_position(database, "orders", last)
        assert len(emitted.matching(StreamParked)) == 1
    read = [each async for each in events.read_all()]
    assert (parked.stream, parked.position) == ("order-1", read[1].position)
    applied = [read[0], *(each for each in read if each.stream != "order-1")]
    await check_read_model(database, applied)


async def test_too_many_parked_streams_stop_the_projection(events, event_url, database):
    for n in range(4):
        await append_one(events, f"order-{n}", placed("poison"))
    projection = orders_projection(on_poison="park-stream")
    async with running_projector(event_url, [projection], max_parked_streams=3) as emitted:
        (stopped,) = await emitted.wait_for(ProjectionStopped)
    assert stopped.stream == "order-3"
    assert len(emitted.matching(StreamParked)) == 3


async def test_a_function_that_ends_the_transaction_stops_the_projection(
    events, event_url, database
):
    projection = Projection("commits", version=1, tables=[BY_ID])

    @projection.on(Placed)
    async def commit(event, recorded, connection) -> None:
        await connection.commit()

    await append_one(events, "order-1", placed())
    async with running_projector(event_url, [projection]) as emitted:
        (stopped,) = await emitted.wait_for(ProjectionStopped)
    assert "commit has ended the transaction" in stopped.problem
    assert (await stored(database, "commits")).position == 0


@pytest.mark.parametrize(
    "change",
    [
        "SET search_path = other, public",
        "CREATE TEMP TABLE order_by_id (LIKE public.order_by_id INCLUDING ALL)",
    ],
)
async def test_what_a_function_changes_of_its_session_changes_no_other_projection(
    events, event_url, database, change
):
    async with database.transaction() as tx:
        await tx.connection.exec_driver_sql("CREATE SCHEMA other")
        await tx.connection.exec_driver_sql(
            "CREATE TABLE other.order_by_id (LIKE public.order_by_id INCLUDING ALL)"
        )
    changing = Projection("changing", version=1, tables=[HISTORY])

    @changing.on(Cancelled)
    async def change_session(event, recorded, connection) -> None:
        await connection.exec_driver_sql(change)

    both = [changing, orders_projection()]
    async with running_projector(event_url, both, database_pool_size=1):
        await wait_for_position(
            database, "changing", await append_one(events, "order-1", cancelled())
        )
        await wait_for_position(database, "orders", await append_one(events, "order-2", placed()))
    assert [row[0] for row in await rows(database, "order_by_id")] == ["order-2"]


async def test_projections_that_wait_in_a_transaction_leave_connections_to_others(
    events, event_url, database
):
    async with database.transaction() as tx:
        await tx.connection.run_sync(OTHER.metadata.create_all)
    release = asyncio.Event()
    slow = [Projection(f"slow{n}", version=1, tables=[t]) for n, t in enumerate([HISTORY, OTHER])]

    async def wait(event: Any, recorded: Recorded, connection: AsyncConnection) -> None:
        await release.wait()

    for each in slow:
        each.on("order-placed")(wait)
    async with running_projector(event_url, [*slow, orders_projection()], database_pool_size=1):
        position = await append_one(events, "order-1", placed())
        async with asyncio.timeout(4):
            await wait_for_position(database, "orders", position)
        release.set()


async def test_a_batch_waits_for_a_locked_row_and_is_tried_again(events, event_url, database):
    await append_orders(events, 5)
    async with running_projector(event_url, [orders_projection()]):
        await wait_for_position(database, "orders", await events.position())
        async with database.transaction() as tx:
            lock = "SELECT * FROM orders_by_customer FOR UPDATE"
            await tx.connection.exec_driver_sql(lock)
            await append_orders(events, 5)
        await wait_for_position(database, "orders", await events.position())
    await check_read_model(database, [each async for each in events.read_all()])


async def test_a_projection_of_another_version_is_refused(event_url, database):
    settings = Settings()
    async with Projector([orders_projection()], event_url, settings, EventRecorder()):
        pass
    newer = orders_projection()
    newer.version = 2
    with pytest.raises(SchemaMismatch, match="has version 1 in the database and version 2"):
        async with Projector([newer], event_url, settings, EventRecorder()):
            pass


async def test_projections_that_break_a_rule_are_refused(event_url):
    with pytest.raises(DefinitionError, match="is also declared at"):
        Projector([orders_projection()] * 2 + [orders_projection()], event_url, Settings(), print)


async def test_a_writer_waits_until_its_own_writes_are_in_the_tables(events, event_url, database):
    projection = orders_projection()
    with pytest.raises(NotFound, match="Run `saga-engine projector MODULE`"):
        await events.caught_up(projection, position := 1)
    async with running_projector(event_url, [projection]):
        for n in range(20):
            position = await append_one(events, f"order-{n}", placed())
            await events.caught_up(projection, position, timeout=30)
            assert len(await rows(database, "order_by_id")) == n + 1
    with pytest.raises(TimedOut, match="Check that a projector runs it"):
        await events.caught_up(projection, position + 1, timeout=0.01)
    await append_one(events, "order-1", placed("poison"))
    async with running_projector(event_url, [projection]) as emitted:
        await emitted.wait_for(ProjectionStopped)
    next_step = "`saga-engine projections show orders` shows why"
    with pytest.raises(Conflict, match=f"is stopped at position .* {next_step}"):
        await events.caught_up(projection, position + 1)


async def test_it_stops_within_its_poll_interval(event_url, database):
    async with asyncio.timeout(20), running_projector(event_url, [orders_projection()]) as emitted:
        await emitted.wait_for(ProjectionAcquired)


LOSE_EVENTS = """
BEGIN;
LOCK TABLE saga_engine.projection IN ACCESS EXCLUSIVE MODE;
DELETE FROM saga_engine.stream_event WHERE position > 10;
UPDATE saga_engine.projection SET position = 10;
SELECT setval('saga_engine.event_position', 10);
TRUNCATE orders_by_customer, order_by_id;
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND datname = current_database();
COMMIT"""


async def test_events_after_a_failover_that_lost_positions_are_applied(events, event_url, database):
    """What a standby has that was promoted before it received positions 11 to 100."""
    async with running_projector(event_url, [orders_projection()]):
        lost = await append_one(events, "order-1", *[placed()] * 100)
        await wait_for_position(database, "orders", lost)
        async with connected(event_url) as other:
            await other.execute(LOSE_EVENTS)
        async with Events(event_url) as after_failover:
            appends = [Append(f"order-new-{number}", [placed()]) for number in range(5)]
            last = (await after_failover.append(*appends)).position
            await after_failover.caught_up(orders_projection(), last, 20.0)
    assert last < lost
    async with connected(event_url) as other:
        assert await other.fetchval("SELECT count(*) FROM order_by_id") == 5


async def test_a_checkpoint_that_was_never_drawn_is_named(events, event_url, database):
    async with running_projector(event_url, [orders_projection()]) as emitted:
        position = await append_one(events, "order-1", placed())
        await wait_for_position(database, "orders", position)
        async with connected(event_url) as other:
            await other.execute("UPDATE saga_engine.projection SET position = 1000")
        (reported,) = await emitted.wait_for(DatabaseUnavailable)
    assert "position 1000 does not exist" in reported.problem


async def test_an_event_that_is_not_readable_json_stops_the_projection_at_it(
    events, event_url, database
):
    """Another program has inserted it. An operator can skip it, as each poison event."""
    async with connected(event_url) as other:
        await other.execute(
            "INSERT INTO saga_engine.stream_event"
            " (stream, version, type, schema_version, data, metadata)"
            " VALUES ('order-1', 1, 'order-placed', 1, '1e400', '{}')"
        )
    async with running_projector(event_url, [orders_projection()]) as emitted:
        (stopped,) = await emitted.wait_for(ProjectionStopped)
    assert "its data cannot be read as JSON" in stopped.problem
