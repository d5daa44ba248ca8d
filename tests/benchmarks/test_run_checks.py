"""A benchmark with a wrong run fails."""

from uuid import UUID

import pytest

from benchmarks.load_generator import Workload
from benchmarks.runs.run_checks import check_runs
from benchmarks.servers import connect
from tests.kit.stored_runs import CHARGED, DECLINED, RESERVED, apply_trigger, insert_run

COMPLETED = Workload(expected_trail=("reserve", "charge"))
DECLINED_RUN = Workload(
    expected_status="compensating", expected_trail=("reserve", "charge rejected")
)
ANY_RUN = UUID(int=0)


@pytest.fixture
async def run(sql_store, definition_id):
    """A run that completed."""
    return await stored(sql_store, definition_id, RESERVED, CHARGED)


async def stored(store, definition_id, *replies):
    async with store.transaction() as tx:
        run = await insert_run(tx, definition_id)
        for reply in replies:
            await apply_trigger(tx, run.run_id, reply)
    return run


async def execute(url, statement, *arguments):
    connection = await connect(url)
    try:
        await connection.execute(statement, *arguments)
    finally:
        await connection.close()


@pytest.mark.usefixtures("run")
async def test_runs_with_their_status_and_trail_pass(sql_store, definition_id, migrated_url):
    await stored(sql_store, definition_id, RESERVED, DECLINED)
    await check_runs(migrated_url, {COMPLETED: 1, DECLINED_RUN: 1}, since=ANY_RUN)


async def test_older_runs_are_not_read(run, migrated_url):
    await check_runs(migrated_url, {}, since=UUID(int=UUID(run.run_id).int + 1))


@pytest.mark.usefixtures("run")
async def test_a_missing_run_fails(migrated_url):
    with pytest.raises(SystemExit, match="runs by status"):
        await check_runs(migrated_url, {COMPLETED: 2}, since=ANY_RUN)


@pytest.mark.usefixtures("run")
async def test_another_order_of_steps_fails(migrated_url):
    backwards = Workload(expected_trail=("charge", "reserve"))
    with pytest.raises(SystemExit, match="runs by trail"):
        await check_runs(migrated_url, {backwards: 1}, since=ANY_RUN)


async def test_a_request_that_is_left_over_fails(run, migrated_url):
    await execute(
        migrated_url,
        "INSERT INTO saga_engine.pending_request (run_id, kind, body) VALUES ($1, 'cancel', '{}')",
        run.run_id,
    )
    with pytest.raises(SystemExit, match="rows left over"):
        await check_runs(migrated_url, {COMPLETED: 1}, since=ANY_RUN)


@pytest.mark.usefixtures("run")
async def test_a_command_that_is_not_in_the_barrier_fails(migrated_url):
    await execute(migrated_url, "CREATE TABLE saga_barrier ()")
    with pytest.raises(SystemExit, match="commands performed: 0, expected 2"):
        await check_runs(migrated_url, {COMPLETED: 1}, since=ANY_RUN, barrier=True)
