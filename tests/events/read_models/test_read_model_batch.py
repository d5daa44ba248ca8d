"""A batch of a read model is added once with its checkpoint, and one bad row is found alone."""

import asyncio
from random import Random

import pytest

from saga_engine.errors import SchemaMismatch
from saga_engine.events.projections import projection_actions, projection_failures, projection_table
from saga_engine.events.projections.projection_table import ProjectionState
from saga_engine.events.read_models.run_statistics import RUN_STATISTICS
from saga_engine.events.readers.operator_audit import Operator
from saga_engine.events.readers.owned_loop import NotOwner
from saga_engine.postgres.statement import text
from tests.kit.projections import stored
from tests.kit.read_models import (
    append_random,
    applier,
    apply_all,
    damage_row,
    last_position,
    table_rows,
)

ALL = 1_000_000
ROWS = text("SELECT position FROM saga_engine.journal ORDER BY position")


async def row_positions(database) -> list[int]:
    async with database.transaction() as tx:
        return list((await tx.execute(ROWS)).scalars())


async def test_the_second_of_two_owners_adds_nothing(database, definition_id):
    await append_random(database, Random(0), definition_id, 30)
    first = await applier(database, RUN_STATISTICS, "a")
    second = await applier(database, RUN_STATISTICS, "b")

    async def attempt(owner) -> bool:
        try:
            await owner.apply_next(0, ALL)
        except NotOwner:
            return False
        return True

    async with asyncio.TaskGroup() as tasks:
        applied = [tasks.create_task(attempt(each)) for each in (first, second)]
    assert sorted(each.result() for each in applied) == [False, True]
    once = await table_rows(database, RUN_STATISTICS)
    async with database.transaction() as tx:
        await tx.execute(text("DELETE FROM saga_engine.run_statistics"))
    await apply_all(database, RUN_STATISTICS)
    assert await table_rows(database, RUN_STATISTICS) == once
    assert (await stored(database, RUN_STATISTICS.name)).position == await last_position(database)


async def test_a_batch_covers_a_limited_number_of_positions(database, definition_id):
    await append_random(database, Random(0), definition_id, 30)
    one = await applier(database, RUN_STATISTICS)
    batch = await one.apply_next(0, 10)
    assert (batch.position, batch.horizon) == (10, await last_position(database))
    assert (await stored(database, RUN_STATISTICS.name)).position == 10


async def test_a_paused_read_model_is_not_changed(database, definition_id):
    await append_random(database, Random(0), definition_id, 3)
    one = await applier(database, RUN_STATISTICS)
    async with database.transaction() as tx:
        await projection_actions.pause(tx, RUN_STATISTICS.name, Operator("ann", "a test"))
    with pytest.raises(NotOwner):
        await one.apply_next(0, ALL)
    assert await table_rows(database, RUN_STATISTICS) == []


@pytest.mark.parametrize("place", [0, 0.5, -1])
async def test_a_row_that_cannot_be_read_stops_it_there_until_it_is_skipped(
    database, definition_id, place
):
    await append_random(database, Random(0), definition_id, 30)
    rows = await row_positions(database)
    bad = rows[int(place * len(rows)) if place > 0 else place]
    async with database.transaction() as tx:
        await damage_row(tx, bad)
    one = await applier(database, RUN_STATISTICS)
    batch = await one.apply_next(0, ALL)
    assert batch.poison
    assert (batch.position, batch.poison.recorded.position) == (bad - 1, bad)
    found = await stored(database, RUN_STATISTICS.name)
    assert (found.state, found.position) == (ProjectionState.STOPPED, bad - 1)
    async with database.transaction() as tx:
        [failure] = await projection_failures.read_open(tx, RUN_STATISTICS.name, 1)
        assert failure.position == bad
        assert "PostgreSQL refuses the data" in failure.error
        await projection_actions.skip(tx, RUN_STATISTICS.name, bad, Operator("ann", "damaged"))
    assert await one.acquire() == bad
    assert (await one.apply_next(bad, ALL)).poison is None
    assert (await stored(database, RUN_STATISTICS.name)).position == await last_position(database)
    kept = await table_rows(database, RUN_STATISTICS)
    async with database.transaction() as tx:
        await tx.execute(text("DELETE FROM saga_engine.run_statistics"))
        empty = text("UPDATE saga_engine.journal SET events = '[]' WHERE position = :position")
        await tx.execute(empty, {"position": bad})
    await apply_all(database, RUN_STATISTICS)
    assert await table_rows(database, RUN_STATISTICS) == kept


async def test_a_corrected_row_is_applied_after_a_retry(database, definition_id):
    await append_random(database, Random(0), definition_id, 5)
    bad = (await row_positions(database))[3]
    save = text("SELECT events::text FROM saga_engine.journal WHERE position = :position")
    restore = text(
        "UPDATE saga_engine.journal SET events = CAST(:events AS text)::jsonb"
        " WHERE position = :position"
    )
    async with database.transaction() as tx:
        events = (await tx.execute(save, {"position": bad})).scalar_one()
        await damage_row(tx, bad)
    one = await applier(database, RUN_STATISTICS)
    assert (await one.apply_next(0, ALL)).poison
    async with database.transaction() as tx:
        await tx.execute(restore, {"position": bad, "events": events})
        await projection_actions.retry(tx, RUN_STATISTICS.name, Operator("ann", "corrected"))
    assert await one.acquire() == bad - 1
    assert (await one.apply_next(bad - 1, ALL)).poison is None
    found = await table_rows(database, RUN_STATISTICS)
    async with database.transaction() as tx:
        await tx.execute(text("DELETE FROM saga_engine.run_statistics"))
    await apply_all(database, RUN_STATISTICS)
    assert await table_rows(database, RUN_STATISTICS) == found


async def test_a_missing_table_blames_no_row(database, definition_id):
    await append_random(database, Random(0), definition_id, 3)
    one = await applier(database, RUN_STATISTICS)
    async with database.transaction() as tx:
        await tx.execute(text("ALTER TABLE saga_engine.run_statistics RENAME TO gone"))
    with pytest.raises(SchemaMismatch):
        await one.apply_next(0, ALL)
    found = await stored(database, RUN_STATISTICS.name)
    assert (found.state, found.position) == (ProjectionState.ACTIVE, 0)
    async with database.transaction() as tx:
        assert await projection_table.acquire(tx, RUN_STATISTICS, "a", 1.0) == 0
