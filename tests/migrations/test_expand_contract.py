"""Two versions of the engine on one schema: who may work on it, and what a migration may do."""

import asyncio
import re

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from saga_engine.errors import StoreLockTimeout
from saga_engine.settings import Settings
from saga_engine.store import migrate
from saga_engine.store.database import Database
from saga_engine.store.schema import ENGINE, ENGINE_DATABASE, EVENTS
from tests.kit.schemas import migrate_to, migrations, statements

LATER = [(lineage, each) for lineage in ENGINE_DATABASE for each in migrations(lineage)[1:]]
EVERY = [pytest.param(*each, id=f"{each[0].directory}-{each[1].revision}") for each in LATER]

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


def broken_rules(lineage, script):
    for statement in statements(script, lineage).split(";"):
        words = " ".join(statement.split())
        for forbidden, why in NOT_WHILE_OTHERS_WORK.items():
            if (script.revision, words) not in ALLOWED and re.search(forbidden, words):
                yield f"{words}: {why}"


@pytest.mark.parametrize(("lineage", "script"), EVERY)
def test_a_migration_removes_nothing_that_the_previous_version_uses(lineage, script):
    assert not list(broken_rules(lineage, script))


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE saga_engine.run DROP COLUMN key",
        "ALTER TABLE saga_engine.run RENAME COLUMN key TO name",
        "ALTER TABLE saga_engine.outbox ADD COLUMN extra text NOT NULL",
        "ALTER TABLE saga_engine.run ALTER COLUMN key TYPE varchar(10)",
    ],
)
def test_the_rules_find_statements_that_break_the_previous_version(statement, monkeypatch):
    monkeypatch.setattr("tests.migrations.test_expand_contract.statements", lambda *_: statement)
    assert list(broken_rules(*LATER[0]))


@pytest.mark.parametrize(("lineage", "script"), EVERY)
def test_a_migration_says_which_code_still_works(lineage, script):
    earlier = [each.revision for each in migrations(lineage) if each.revision <= script.revision]
    assert script.module.min_code_revision in earlier


@pytest.mark.parametrize(
    ("lineage", "table"), [(ENGINE, "schema_revision"), (EVENTS, "event_schema_revision")]
)
async def test_the_database_records_the_requirement_of_each_migration(lineage, table, migrated_url):
    async with Database(migrated_url, Settings()) as database, database.transaction() as tx:
        rows = await tx.execute(
            text(f"SELECT revision, min_code_revision FROM saga_engine.{table}")
        )
        said = {row.revision: row.min_code_revision for row in rows}
    assert said == {each.revision: each.module.min_code_revision for each in migrations(lineage)}


async def test_a_migration_that_waits_for_a_table_does_not_block_writers(database_url):
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


async def test_a_migration_that_never_gets_its_lock_changes_nothing(database_url):
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
