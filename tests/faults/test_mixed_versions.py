"""The worker before the newest migration and the one after it share a database for a while."""

import io
import os
import subprocess
import tarfile

import pytest

from saga_engine.settings import Settings
from saga_engine.store import migrate
from saga_engine.store.database import Database
from tests.kit.load_environment import load_environment
from tests.kit.programs import ROOT, sleep
from tests.kit.promises import check_promises
from tests.kit.schemas import migrate_to

PREVIOUS = "fa51b80"
"""The last commit whose newest migration is the one before ours."""

BEFORE = "0001"
SAGAS = "examples.place_order.sagas"


def code_of(commit, directory):
    """The files of a commit; without its history this test can only be skipped."""
    done = subprocess.run(
        ["git", "archive", commit, "saga_engine", "migrations", "examples"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        complain = pytest.fail if os.environ.get("CI") else pytest.skip
        complain(f"Commit {commit} is not here. Fetch the whole history.")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(directory, filter="data")
    return directory


@pytest.mark.rabbitmq
@pytest.mark.timeout(240)
async def test_the_previous_worker_goes_on_while_the_schema_grows_under_it(
    rabbitmq_url, database_url, tmp_path
):
    previous = code_of(PREVIOUS, tmp_path / "previous")
    await migrate_to(database_url, BEFORE)
    async with load_environment(database_url, rabbitmq_url, tmp_path) as place:
        await place.start_participant("examples.place_order.services")
        old = await place.run_program("worker", SAGAS, name="old", cwd=previous)
        await place.start_runs(100)
        await place.wait_for_ended("place-order", 20)
        await migrate.upgrade(database_url)
        await place.start_runs(100)
        await place.wait_for_ended("place-order", 120)
        new = await place.run_program("worker", SAGAS, name="new")
        await place.start_runs(100)
        await place.start_runs(20, card="declined")
        await place.wait_for_all_ended()
        assert (await old.drain(), await new.drain()) == (0, 0)
        assert dict(await place.ended_by_status()) == {"completed": 300, "compensated": 20}
    async with Database(database_url, Settings()) as database:
        await check_promises(database)


@pytest.mark.rabbitmq
@pytest.mark.timeout(120)
async def test_a_table_that_changes_under_a_worker_costs_nothing_but_a_second_try(
    rabbitmq_url, migrated_url, tmp_path
):
    """A cached plan whose result changes its type is an error of PostgreSQL's."""
    async with load_environment(migrated_url, rabbitmq_url, tmp_path) as place:
        await place.start_participant("examples.place_order.services")
        await place.start_worker(SAGAS)
        for kind in ("varchar", "text", "varchar", "text"):
            await place.start_runs(50)
            alter = f"ALTER TABLE saga_engine.run ALTER COLUMN key TYPE {kind}"
            async with place.engine.begin() as connection:
                await connection.exec_driver_sql(alter)
            await sleep(0.3)
        await place.wait_for_all_ended()
        assert dict(await place.ended_by_status()) == {"completed": 200}
        assert await place.extra_attempts() == 0
