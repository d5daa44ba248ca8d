"""Workers of the versions before and after the newest migration share one database."""

import shutil
from pathlib import Path

import pytest

from saga_engine.store import migrate
from saga_engine.store.database import Database
from saga_engine.store.schema import REVISION
from tests.kit.engine import SLOW_TEST_SETTINGS
from tests.kit.load_environment import load_environment
from tests.kit.programs import ROOT, sleep
from tests.kit.promises import check_promises
from tests.kit.schemas import migrate_to, migrations

NEWEST = migrations()[-1]
REVISION_BEFORE = NEWEST.down_revision
SAGAS = "examples.place_order.sagas"


def copy_version_before_newest_migration(directory):
    """Copy this version without its newest migration: it expects the schema before that one."""
    ignored = shutil.ignore_patterns("__pycache__", Path(NEWEST.path).name)
    for name in ("saga_engine", "migrations", "examples"):
        shutil.copytree(ROOT / name, directory / name, ignore=ignored)
    schema = directory / "saga_engine" / "store" / "schema.py"
    declaration = 'REVISION = "{}"'
    source = schema.read_text()
    assert source.count(declaration.format(REVISION)) == 1
    schema.write_text(
        source.replace(declaration.format(REVISION), declaration.format(REVISION_BEFORE))
    )
    return directory


@pytest.mark.rabbitmq
@pytest.mark.timeout(240)
async def test_a_worker_of_the_previous_version_continues_after_a_migration(
    rabbitmq_url, database_url, tmp_path
):
    previous = copy_version_before_newest_migration(tmp_path / "previous")
    await migrate_to(database_url, REVISION_BEFORE)
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
        assert (await old.terminate(), await new.terminate()) == (0, 0)
        assert dict(await place.ended_by_status()) == {"completed": 300, "compensated": 20}
    async with Database(database_url, SLOW_TEST_SETTINGS) as database:
        await check_promises(database)


@pytest.mark.rabbitmq
@pytest.mark.timeout(120)
async def test_a_worker_retries_a_statement_whose_table_was_altered(
    rabbitmq_url, migrated_url, tmp_path
):
    """PostgreSQL refuses a cached plan whose result type has changed."""
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
