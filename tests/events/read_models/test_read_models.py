"""The read models of a process follow the journals, and one that fails stops alone."""

from random import Random

from saga_engine.events.projections import projection_actions
from saga_engine.events.read_models.failure_causes import FAILURE_CAUSE
from saga_engine.events.read_models.read_models import READ_MODELS
from saga_engine.events.read_models.run_statistics import RUN_STATISTICS
from saga_engine.events.read_models.step_durations import STEP_DURATION
from saga_engine.events.readers.operator_audit import Operator
from saga_engine.postgres.statement import text
from saga_engine.telemetry.events import InternalErrorCaught, ProjectionsMeasured, ProjectionStopped
from tests.kit.projections import stored, wait_for_position
from tests.kit.read_models import (
    append_random,
    applier,
    apply_all,
    damage_row,
    last_position,
    running_read_models,
    table_rows,
)

ANN = Operator("ann", "a test")


async def check(database, models=READ_MODELS):
    """The tables are what they would be if they were filled from the beginning."""
    for model in models:
        found = await table_rows(database, model)
        assert found
        async with database.transaction() as tx:
            await tx.execute(text(f"DELETE FROM saga_engine.{model.table}"))
        await apply_all(database, model)
        assert await table_rows(database, model) == found


async def test_they_follow_the_journals_through_any_number_of_processes(
    database, migrated_url, definition_id
):
    rng = Random(0)
    async with (
        running_read_models(migrated_url) as (_, first),
        running_read_models(migrated_url) as (_, second),
    ):
        for _ in range(5):
            await append_random(database, rng, definition_id, 30)
        last = await last_position(database)
        for model in READ_MODELS:
            await wait_for_position(database, model.name, last)
        await first.wait_for(ProjectionsMeasured)
        await second.wait_for(ProjectionsMeasured)
    for model in READ_MODELS:
        assert (await stored(database, model.name)).owner is None  # the leases have ended
    await check(database)


async def test_another_process_continues_when_the_lease_of_a_killed_one_ends(
    database, migrated_url, definition_id
):
    await append_random(database, Random(0), definition_id, 30)
    for model in READ_MODELS:
        killed = await applier(database, model, "killed")
        await killed.acquire()
    async with database.transaction() as tx:
        await tx.execute(text("UPDATE saga_engine.projection SET leased_until = now()"))
    async with running_read_models(migrated_url):
        for model in READ_MODELS:
            await wait_for_position(database, model.name, await last_position(database))
    await check(database)


async def test_one_that_cannot_read_a_row_stops_alone(database, migrated_url, definition_id):
    await append_random(database, Random(0), definition_id, 10)
    only_statistics = text("ALTER TABLE saga_engine.run_statistics ADD CHECK (runs < 0) NOT VALID")
    async with database.transaction() as tx:
        await tx.execute(only_statistics)
    last = await last_position(database)
    async with running_read_models(migrated_url) as (models, emitted):
        await emitted.wait_for(ProjectionStopped, projection=RUN_STATISTICS.name)
        for model in (FAILURE_CAUSE, STEP_DURATION):
            await wait_for_position(database, model.name, last)
        measured = emitted.matching(ProjectionsMeasured)
        await emitted.wait_for(ProjectionsMeasured, len(measured) + 2)
        assert models.problem is None  # a restart would not help
    await check(database, (FAILURE_CAUSE, STEP_DURATION))


async def test_one_that_is_paused_does_not_make_the_process_unready(
    database, migrated_url, definition_id
):
    await applier(database, RUN_STATISTICS)
    async with database.transaction() as tx:
        await projection_actions.pause(tx, RUN_STATISTICS.name, ANN)
    await append_random(database, Random(0), definition_id, 10)
    async with running_read_models(migrated_url, projection_stall_timeout=0.01) as (
        models,
        emitted,
    ):
        await wait_for_position(database, STEP_DURATION.name, await last_position(database))
        measured = emitted.matching(ProjectionsMeasured)
        await emitted.wait_for(ProjectionsMeasured, len(measured) + 3)
        assert RUN_STATISTICS.name not in (models.problem or "")
        async with database.transaction() as tx:
            await projection_actions.resume(tx, RUN_STATISTICS.name, ANN)
        await wait_for_position(database, RUN_STATISTICS.name, await last_position(database))


async def test_one_that_cannot_move_is_a_problem_of_the_process(
    database, migrated_url, definition_id
):
    await append_random(database, Random(0), definition_id, 10)
    async with database.transaction() as tx:
        await tx.execute(text("ALTER TABLE saga_engine.run_statistics RENAME TO gone"))
    async with running_read_models(migrated_url, projection_stall_timeout=0.01) as (
        models,
        emitted,
    ):
        await emitted.wait_for(InternalErrorCaught)
        await emitted.wait_until(lambda _: RUN_STATISTICS.name in (models.problem or ""))


async def test_a_damaged_row_stops_all_and_names_its_run(database, migrated_url, definition_id):
    [history] = await append_random(database, Random(0), definition_id, 1)
    async with database.transaction() as tx:
        await damage_row(tx, 1)
    async with running_read_models(migrated_url) as (_, emitted):
        stopped = await emitted.wait_for(ProjectionStopped, len(READ_MODELS))
    assert {each.stream for each in stopped} == {f"run-{history.run_id}"}


async def test_one_that_is_stopped_is_named_when_a_process_starts(
    database, migrated_url, definition_id
):
    await append_random(database, Random(0), definition_id, 1)
    async with database.transaction() as tx:
        await damage_row(tx, 1)
    await (await applier(database, RUN_STATISTICS)).apply_next(0, 1000)
    async with running_read_models(migrated_url) as (_, emitted):
        (named,) = emitted.matching(ProjectionStopped)  # before it has read anything
    assert (named.projection, named.position) == (RUN_STATISTICS.name, 1)
    assert named.next_command == f"saga-engine projections show {RUN_STATISTICS.name} --version 1"
