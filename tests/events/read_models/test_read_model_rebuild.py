"""A read model is filled again in one transaction: completely, or not at all."""

import asyncio
from random import Random

import pytest

from saga_engine.errors import Conflict, NotFound, TimedOut
from saga_engine.events.projections import projection_actions, projection_failures
from saga_engine.events.projections.projection_table import ProjectionState
from saga_engine.events.read_models.read_model_rebuild import ReadModelRebuild, ranges
from saga_engine.events.read_models.read_models import READ_MODELS
from saga_engine.events.read_models.run_statistics import RUN_STATISTICS
from saga_engine.events.readers.operator_audit import Operator
from saga_engine.postgres.statement import text
from tests.kit.programs import wait_until_true
from tests.kit.projections import stored
from tests.kit.read_models import (
    append_random,
    applier,
    apply_all,
    damage_row,
    last_position,
    table_rows,
)

ANN = Operator("ann", "a test")
WRONG = text("INSERT INTO saga_engine.run_statistics VALUES ('place-order', 'wrong', 7)")
LAST_ROW = text("SELECT position FROM saga_engine.journal ORDER BY position DESC LIMIT 1")
IS_BLOCKED = text("SELECT count(*) FROM pg_locks WHERE NOT granted")


def rebuild(database, model=RUN_STATISTICS, timeout=60.0):
    return ReadModelRebuild(
        database=database, model=model, operator=ANN, window=50, timeout=timeout
    )


async def write_wrong_rows(database):
    async with database.transaction() as tx:
        await tx.execute(WRONG)
    return await table_rows(database, RUN_STATISTICS)


async def is_blocked(database):
    async with database.transaction() as tx:
        return (await tx.execute(IS_BLOCKED)).scalar_one() > 0


async def test_the_rows_are_those_of_all_events_and_the_position_is_the_horizon(
    database, definition_id
):
    await append_random(database, Random(0), definition_id, 30)
    for model in READ_MODELS:
        await applier(database, model)
        await apply_all(database, model)
        expected = await table_rows(database, model)
        async with database.transaction() as tx:
            await tx.execute(text(f"DELETE FROM saga_engine.{model.table}"))
        done = await rebuild(database, model).run()
        assert await table_rows(database, model) == expected != []
        found = await stored(database, model.name)
        assert found.position == done.position == await last_position(database)
        assert (found.state, done.from_position) == (ProjectionState.ACTIVE, 1)
        assert (done.runs_complete_from, done.from_time is not None) == (1, True)


@pytest.mark.parametrize("is_interrupted", [False, True])
async def test_readers_see_the_old_rows_until_all_new_ones_are_there(
    database, definition_id, is_interrupted
):
    await append_random(database, Random(0), definition_id, 30)
    await applier(database, RUN_STATISTICS)
    old = await write_wrong_rows(database)
    async with asyncio.TaskGroup() as tasks, database.transaction() as blocking:
        # Its last statement before the commit waits for this lock.
        await blocking.execute(text("LOCK TABLE saga_engine.operator_action"))
        running = tasks.create_task(rebuild(database).run())
        await wait_until_true(lambda: is_blocked(database))
        assert await table_rows(database, RUN_STATISTICS) == old
        assert (await stored(database, RUN_STATISTICS.name)).state is ProjectionState.PAUSED
        if is_interrupted:
            running.cancel()
            await asyncio.wait([running])
    now = await table_rows(database, RUN_STATISTICS)
    assert (now == old) is is_interrupted
    found = await stored(database, RUN_STATISTICS.name)
    assert (found.state, found.position > 0) == (ProjectionState.ACTIVE, not is_interrupted)


async def test_one_that_takes_too_long_changes_nothing(database, definition_id):
    await append_random(database, Random(0), definition_id, 30)
    await applier(database, RUN_STATISTICS)
    old = await write_wrong_rows(database)
    async with database.transaction() as blocking:
        await blocking.execute(text("LOCK TABLE saga_engine.operator_action"))
        with pytest.raises(TimedOut, match="READ_MODEL_REBUILD_TIMEOUT"):
            await rebuild(database, timeout=0.5).run()
    assert await table_rows(database, RUN_STATISTICS) == old
    found = await stored(database, RUN_STATISTICS.name)
    assert (found.state, found.position) == (ProjectionState.ACTIVE, 0)


async def test_one_that_was_stopped_goes_on_and_a_skipped_row_stays_out(database, definition_id):
    await append_random(database, Random(0), definition_id, 5)
    owner = await applier(database, RUN_STATISTICS)
    async with database.transaction() as tx:
        await damage_row(tx, (await tx.execute(LAST_ROW)).scalar_one())
    poison = (await owner.apply_next(0, 1000)).poison
    assert poison is not None
    refused = rf"position {poison.recorded.position} cannot be applied.*Nothing has changed"
    with pytest.raises(Conflict, match=refused):
        await rebuild(database).run()
    assert (await stored(database, RUN_STATISTICS.name)).state is ProjectionState.STOPPED
    while poison is not None:  # other rows of that run, too: they read the damaged one
        async with database.transaction() as tx:
            position = poison.recorded.position
            await projection_actions.skip(tx, RUN_STATISTICS.name, position, ANN)
        poison = (await owner.apply_next(await owner.acquire() or 0, 1000)).poison
    await rebuild(database).run()
    found = await stored(database, RUN_STATISTICS.name)
    assert found.position == await last_position(database)
    async with database.transaction() as tx:
        assert await projection_failures.read_open(tx, found.name, found.version) == []


async def test_one_that_an_operator_has_paused_stays_paused(database, definition_id):
    await append_random(database, Random(0), definition_id, 5)
    await applier(database, RUN_STATISTICS)
    async with database.transaction() as tx:
        await projection_actions.pause(tx, RUN_STATISTICS.name, ANN)
    await rebuild(database).run()
    assert (await stored(database, RUN_STATISTICS.name)).state is ProjectionState.PAUSED


async def test_one_that_no_worker_has_registered_is_not_found(database):
    with pytest.raises(NotFound):
        await rebuild(database).run()


def test_ranges_cover_every_position_but_the_skipped_ones():
    for skipped in ([], [1], [3, 4], [10], [2, 9, 10], [0, 11]):
        cut = [*ranges(0, 10, skipped, 3)]
        covered = [each for after, until in cut for each in range(after + 1, until + 1)]
        assert covered == [each for each in range(1, 11) if each not in skipped]
        assert all(until - after <= 3 for after, until in cut)
    assert [*ranges(0, 0, [], 3)] == []
