"""A rebuild waits between its batches while the live tables are behind, and only then."""

from contextlib import AsyncExitStack

import pytest

from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.projections import projection_table
from saga_engine.events.projections.projection_table import ProjectionRole
from saga_engine.events.projections.projection_version import ProjectionVersion
from saga_engine.events.projections.rebuild_pace import RebuildPace
from saga_engine.settings import Settings
from saga_engine.telemetry.events import ProjectionBatchApplied
from tests.kit.programs import wait_until_true
from tests.kit.projections import (
    append_one,
    append_orders,
    placed,
    projection_database,
    running_projector,
)
from tests.kit.read_model import orders_projection
from tests.kit.rebuilds import begin, sql, versions

SECONDS_BEHIND = 10


@pytest.fixture
async def database(event_url):
    async with projection_database(event_url) as database:
        yield database


async def pace(database, version: int = 2, limit: float = 1.0) -> RebuildPace:
    """That of a rebuild which a process is to fill."""
    async with database.transaction() as tx:
        log = await EventLog.load(tx)
    settings = Settings(projection_rebuild_yield_lag=limit)
    return RebuildPace(database, log, ProjectionVersion(orders_projection(), version), settings)


@pytest.fixture
async def lagging(events, database):
    """The live tables are behind by an event of some seconds ago, and a rebuild was started."""
    async with database.transaction() as tx:
        await projection_table.register(tx, [orders_projection()])
        await projection_table.acquire(tx, orders_projection(), "a", 60)
    await begin(database)
    await append_one(events, "order-1", placed())
    age = f"recorded_at = now() - interval '{SECONDS_BEHIND} s'"
    await sql(database, f"UPDATE saga_engine.stream_event SET {age}")


async def test_a_rebuild_waits_while_the_live_tables_are_behind(lagging, database):
    assert await (await pace(database)).pause() == 1.0
    assert await (await pace(database, limit=SECONDS_BEHIND * 2)).pause() == 0


@pytest.mark.parametrize(
    "change",
    [
        "SET position = 1000000 WHERE role = 'live'",  # they are not behind
        "SET owner = NULL WHERE role = 'live'",  # no process runs them
        "SET state = 'stopped' WHERE role = 'live'",
        "SET role = CASE role WHEN 'live' THEN 'previous' ELSE 'live' END",  # it is live itself
    ],
)
async def test_a_rebuild_waits_for_nothing_else(lagging, database, change):
    await sql(database, f"UPDATE saga_engine.projection {change}")
    assert await (await pace(database)).pause() == 0


async def test_a_projector_leaves_a_rebuild_behind_until_the_live_tables_have_caught_up(
    events, event_url, database
):
    """The live tables wait for a lock at first. Without a pause both would go on side by side."""
    await append_orders(events, 60)
    await sql(database, "UPDATE saga_engine.stream_event SET recorded_at = now() - interval '2 h'")
    async with database.transaction() as tx:
        await projection_table.register(tx, [orders_projection()])
    await begin(database)
    settings = {"projection_batch_size": 5, "projection_rebuild_yield_lag": 3600.0}
    settings["projection_lease"] = 60.0  # a pause is at most a third of it
    async with AsyncExitStack() as stack:
        async with database.transaction() as tx:
            await tx.connection.exec_driver_sql("LOCK TABLE order_by_id")
            emitted = await stack.enter_async_context(
                running_projector(event_url, [orders_projection()], **settings)
            )
            await emitted.wait_for(ProjectionBatchApplied)

        async def live_has_caught_up() -> bool:
            live = (await versions(database))[ProjectionRole.LIVE]
            horizon: int = await events.position()
            return live.position >= horizon

        await wait_until_true(live_has_caught_up)
        rebuild = (await versions(database))[ProjectionRole.REBUILD]
        assert 0 < rebuild.position * 4 < await events.position()
