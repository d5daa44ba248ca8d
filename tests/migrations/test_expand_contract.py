"""Two versions of the engine on one schema: who may work on it, and what a migration may do."""

import asyncio
import re

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from saga_engine.errors import SchemaMismatch, StoreLockTimeout
from saga_engine.settings import Settings
from saga_engine.store import migrate
from saga_engine.store.database import Database
from saga_engine.store.schema import REVISION
from tests.kit.schemas import migrate_to, migrations, set_newer_revision, statements

LATER = migrations()[1:]
FUTURE = "9000"

NOT_WHILE_OTHERS_WORK = {
    r"\bDROP\b": "the previous version may still use it",
    r"\bRENAME\b": "the previous version knows the old name",
    r"\bALTER COLUMN \S+ (SET DATA )?TYPE\b": "it rewrites the table under a lock",
    r"\bSET NOT NULL\b": "the previous version may leave it out",
    r"\bADD COLUMN\b(?![^;]*\bDEFAULT\b)[^;]*\bNOT NULL\b": "the same",
    r"\bCREATE UNIQUE INDEX\b": "the previous version may break it",
    r"\bADD CONSTRAINT\b(?![^;]*\bNOT VALID\b)": "it reads the whole table under a lock",
    r"\bTRUNCATE\b": "it is not ours to throw away",
}
ALLOWED: dict[tuple[str, str], str] = {}
"""(revision, statement): why it harms no previous version, for instance because
`min_code_revision` no longer uses it."""


def broken_rules(script):
    for statement in statements(script).split(";"):
        words = " ".join(statement.split())
        for forbidden, why in NOT_WHILE_OTHERS_WORK.items():
            if (script.revision, words) not in ALLOWED and re.search(forbidden, words):
                yield f"{words}: {why}"


@pytest.mark.parametrize("script", LATER, ids=lambda each: each.revision)
def test_a_migration_takes_nothing_away_that_the_previous_version_uses(script):
    assert not list(broken_rules(script))


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE saga_engine.run DROP COLUMN key",
        "ALTER TABLE saga_engine.run RENAME COLUMN key TO name",
        "ALTER TABLE saga_engine.outbox ADD COLUMN extra text NOT NULL",
        "ALTER TABLE saga_engine.run ALTER COLUMN key TYPE varchar(10)",
    ],
)
def test_the_rules_see_what_would_stop_a_previous_version(statement, monkeypatch):
    monkeypatch.setattr("tests.migrations.test_expand_contract.statements", lambda _: statement)
    assert list(broken_rules(LATER[0]))


@pytest.mark.parametrize("script", LATER, ids=lambda each: each.revision)
def test_a_migration_says_which_code_still_works_after_it(script):
    earlier = [each.revision for each in migrations() if each.revision <= script.revision]
    assert script.module.min_code_revision in earlier


async def test_the_database_knows_what_its_migrations_have_said(migrated_url):
    async with Database(migrated_url, Settings()) as database, database.transaction() as tx:
        rows = await tx.execute(
            text("SELECT revision, min_code_revision FROM saga_engine.schema_revision")
        )
        said = {row.revision: row.min_code_revision for row in rows}
    assert said == {each.revision: each.module.min_code_revision for each in migrations()}


async def test_a_newer_schema_that_still_fits_is_worked_on_and_left_alone(migrated_url):
    await set_newer_revision(migrated_url, FUTURE, min_code_revision=REVISION)
    async with Database(migrated_url, Settings()) as database:
        await database.check()
        assert await migrate.outdated_reason(migrated_url) is None
        await migrate.upgrade(migrated_url)
        async with database.transaction() as tx:
            found = await tx.execute(text("SELECT version_num FROM saga_engine.alembic_version"))
            assert found.scalar_one() == FUTURE


async def test_code_that_is_too_old_for_the_schema_is_told_to_be_replaced(migrated_url):
    await set_newer_revision(migrated_url, FUTURE, min_code_revision=FUTURE)
    told = f"works with code of revision {FUTURE} on.*Deploy the newer version"
    with pytest.raises(SchemaMismatch, match=told):
        async with Database(migrated_url, Settings()):
            pass
    with pytest.raises(SchemaMismatch, match=told):
        await migrate.upgrade(migrated_url)
    assert "Deploy the newer version" in (await migrate.outdated_reason(migrated_url) or "")


async def test_a_schema_that_is_too_old_for_the_code_is_told_to_be_migrated(database_url):
    await migrate_to(database_url, "0001")
    with pytest.raises(SchemaMismatch, match=r"is at revision 0001.*Run `saga-engine migrate`"):
        async with Database(database_url, Settings()):
            pass
    await migrate.upgrade(database_url)
    async with Database(database_url, Settings()) as database:
        await database.check()


async def test_a_migration_lets_everybody_pass_while_it_waits_for_a_table(database_url):
    await migrate_to(database_url, "0001")
    engine = create_async_engine(database_url, poolclass=NullPool)
    write = text(
        "INSERT INTO saga_engine.pending_request (run_id, kind, body)"
        " VALUES (gen_random_uuid(), 'cancel', '{}')"
    )
    asked = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND query LIKE '%pending_request%' AND pid <> pg_backend_pid()"
    )
    async with engine.connect() as holder, asyncio.TaskGroup() as group:
        await holder.execute(write)  # and no commit: the table stays locked
        migrating = group.create_task(migrate.upgrade(database_url, lock_timeout=0.3))
        async with engine.connect() as other, asyncio.timeout(20):
            waits = 0
            while not waits:
                waits = (await other.execute(asked)).scalar_one()
                await other.rollback()
            # It stands behind the migration in the queue for the lock, and gets through.
            await other.execute(write)
            await other.commit()
        assert not migrating.done()
        await holder.commit()
    assert await migrate.outdated_reason(database_url) is None
    await engine.dispose()


async def test_a_migration_that_never_gets_its_table_says_so_and_changes_nothing(database_url):
    await migrate_to(database_url, "0001")
    engine = create_async_engine(database_url, poolclass=NullPool)
    async with engine.connect() as holder:
        await holder.execute(text("LOCK TABLE saga_engine.pending_request IN ROW EXCLUSIVE MODE"))
        with pytest.raises(
            StoreLockTimeout, match=r"holds a table.*run `saga-engine migrate` again"
        ):
            await migrate.upgrade(database_url, lock_timeout=0.05, retry_window=0.2)
    assert "0001" in (await migrate.outdated_reason(database_url) or "")
    await engine.dispose()
