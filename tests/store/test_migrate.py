import asyncio
import shutil
import sys
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

import saga_engine
from saga_engine.embedded.postgres import PostgresServer
from saga_engine.errors import ConfigurationError, SchemaMismatch, StoreUnavailable
from saga_engine.events.event_store.consumer_tables import consumer
from saga_engine.settings import Settings
from saga_engine.store import migrate
from saga_engine.store.database import Database
from saga_engine.store.schema import ENGINE_DATABASE, EVENT_DATABASE, EVENTS, Lineage, Lineages
from tests.kit.schema_drift import drift, unpooled_engine

EVENT_TABLES = [table.name for table in consumer.metadata.tables.values()]
MONTH_BOUND = "CREATE FUNCTION saga_engine.month_bound(timestamp) RETURNS uuid RETURN NULL::uuid"
MIGRATIONS = Path(saga_engine.__file__).parent.parent / "migrations"


async def test_an_upgraded_database_is_usable_and_not_behind(database_url: str):
    reason = await migrate.outdated_reason(database_url)
    assert reason is not None
    assert "saga-engine migrate" in reason
    await migrate.upgrade(database_url)
    assert await migrate.outdated_reason(database_url) is None
    async with Database(database_url, Settings()) as database:
        await database.check()


async def test_upgrading_again_changes_nothing(migrated_url: str):
    await migrate.upgrade(migrated_url)
    assert await migrate.outdated_reason(migrated_url) is None


async def test_two_concurrent_upgrades_apply_each_migration_once(database_url: str):
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(migrate.upgrade(database_url))
    assert await migrate.outdated_reason(database_url) is None


@pytest.mark.parametrize("lineage", ENGINE_DATABASE, ids=lambda each: each.directory)
def test_the_code_needs_the_newest_migration(lineage: Lineage):
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", str(MIGRATIONS / lineage.directory))
    assert ScriptDirectory.from_config(config).get_current_head() == lineage.revision


async def test_the_database_of_a_service_gets_only_the_event_tables(database_url: str):
    reason = await migrate.outdated_reason(database_url, EVENT_DATABASE)
    assert "has no event tables" in (reason or "")
    assert "Run `saga-engine migrate --events`" in (reason or "")
    await migrate.upgrade(database_url, EVENT_DATABASE)
    assert await migrate.outdated_reason(database_url, EVENT_DATABASE) is None
    connecting = unpooled_engine(database_url)
    async with connecting.connect() as connection:
        found = await connection.run_sync(lambda sync: inspect(sync).get_table_names("saga_engine"))
    await connecting.dispose()
    assert sorted(found) == sorted([*EVENT_TABLES, EVENTS.version_table])
    assert "has no saga-engine schema" in (await migrate.outdated_reason(database_url) or "")


async def test_a_service_and_the_engine_can_share_a_database(database_url: str):
    await migrate.upgrade(database_url, EVENT_DATABASE)
    await migrate.upgrade(database_url)
    assert await migrate.outdated_reason(database_url) is None


async def test_event_tables_of_a_newer_version_are_not_used(migrated_url: str):
    connecting = unpooled_engine(migrated_url)
    newer = f"UPDATE saga_engine.{EVENTS.version_table} SET version_num = '9'"
    async with connecting.begin() as connection:
        await connection.execute(text(newer))
    await connecting.dispose()
    with pytest.raises(SchemaMismatch, match=r"event tables.*Deploy the newer version"):
        async with Database(migrated_url, Settings()):
            pass
    with pytest.raises(SchemaMismatch, match=r"event tables.*Deploy the newer version"):
        await migrate.upgrade(migrated_url)


async def test_a_database_of_a_newer_version_is_not_changed(migrated_url: str):
    connecting = unpooled_engine(migrated_url)
    async with connecting.begin() as connection:
        await connection.execute(text("UPDATE saga_engine.alembic_version SET version_num = '9'"))
    await connecting.dispose()
    assert "newer version" in (await migrate.outdated_reason(migrated_url) or "")
    with pytest.raises(SchemaMismatch, match="newer version"):
        await migrate.upgrade(migrated_url)


@pytest.mark.parametrize(
    ("lineages", "made_before"),
    [
        (EVENT_DATABASE, "CREATE SEQUENCE saga_engine.event_position"),
        (EVENT_DATABASE, "CREATE TABLE saga_engine.stream_event (stream text)"),
        (ENGINE_DATABASE, "CREATE TABLE saga_engine.run (run_id text)"),
        (ENGINE_DATABASE, MONTH_BOUND),
    ],
)
async def test_a_database_that_an_unreleased_version_has_made_is_named_and_not_changed(
    database_url: str, lineages: Lineages, made_before: str
):
    connecting = unpooled_engine(database_url)
    async with connecting.begin() as connection:
        await connection.execute(text("CREATE SCHEMA saga_engine"))
        await connection.execute(text(made_before))
    with pytest.raises(SchemaMismatch, match=r"an unreleased version made them\. Nothing was ch"):
        await migrate.upgrade(database_url, lineages)
    async with connecting.connect() as connection:
        assert await connection.scalar(text("SELECT to_regclass('saga_engine.journal')")) is None
    await connecting.dispose()


async def test_the_tables_and_migrations_of_the_user_are_not_changed(database_url: str):
    connecting = unpooled_engine(database_url)
    async with connecting.begin() as connection:
        for table in ("run", "journal", "outbox", "alembic_version"):
            await connection.execute(text(f"CREATE TABLE public.{table} (mine text)"))
    await migrate.upgrade(database_url)
    async with connecting.connect() as connection:
        for table in ("run", "journal", "outbox", "alembic_version"):
            assert (await connection.execute(text(f"SELECT mine FROM public.{table}"))).all() == []
    await connecting.dispose()


async def test_the_sql_script_creates_the_same_database(database_url: str):
    connecting = unpooled_engine(database_url)
    script = migrate.upgrade_sql()
    async with connecting.connect() as connection:
        raw = await connection.get_raw_connection()
        assert raw.driver_connection is not None
        await raw.driver_connection.execute(script)
        await connection.rollback()
    async with connecting.connect() as connection:
        assert await connection.run_sync(drift) == []
    await connecting.dispose()
    assert await migrate.outdated_reason(database_url) is None


async def test_an_installed_wheel_finds_its_migrations(tmp_path: Path, database_url: str):
    tmp_path /= "100%: a path that a list or an ini file would split"
    package = tmp_path / "saga_engine"
    shutil.copytree(
        Path(saga_engine.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copytree(MIGRATIONS, package / "_migrations")
    program = (
        "import asyncio, sys; from saga_engine.store import migrate;"
        "assert migrate.__file__.startswith(sys.argv[2]);"
        "asyncio.run(migrate.upgrade(sys.argv[1]))"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, database_url, str(tmp_path)),
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
    )
    assert await process.wait() == 0
    assert await migrate.outdated_reason(database_url) is None


async def test_an_unusable_url_has_a_clear_error(postgres: PostgresServer):
    for act in (migrate.upgrade, migrate.outdated_reason):
        with pytest.raises(StoreUnavailable, match="no database of that name"):
            await act(postgres.url.replace("/postgres?", "/nowhere?"))
        with pytest.raises(ConfigurationError, match=r"postgresql\+asyncpg://"):
            await act("nonsense")
