"""Which versions of the code work on which schema."""

import pytest
from sqlalchemy import text

from saga_engine.errors import SchemaMismatch
from saga_engine.settings import Settings
from saga_engine.store import migrate
from saga_engine.store.database import Database
from saga_engine.store.schema import REVISION
from tests.kit.schemas import migrate_to, set_newer_revision

FUTURE = "9000"


async def test_a_compatible_newer_schema_is_used_and_not_changed(migrated_url):
    await set_newer_revision(migrated_url, FUTURE, min_code_revision=REVISION)
    async with Database(migrated_url, Settings()) as database:
        await database.check()
        assert await migrate.outdated_reason(migrated_url) is None
        await migrate.upgrade(migrated_url)
        async with database.transaction() as tx:
            found = await tx.execute(text("SELECT version_num FROM saga_engine.alembic_version"))
            assert found.scalar_one() == FUTURE


async def test_code_that_is_too_old_for_the_schema_is_refused(migrated_url):
    await set_newer_revision(migrated_url, FUTURE, min_code_revision=FUTURE)
    message = f"works with code of revision {FUTURE} on.*Deploy the newer version"
    with pytest.raises(SchemaMismatch, match=message):
        async with Database(migrated_url, Settings()):
            pass
    with pytest.raises(SchemaMismatch, match=message):
        await migrate.upgrade(migrated_url)
    assert "Deploy the newer version" in (await migrate.outdated_reason(migrated_url) or "")


async def test_a_schema_that_is_too_old_for_the_code_is_refused(database_url):
    await migrate_to(database_url, "0001")
    with pytest.raises(SchemaMismatch, match=r"is at revision 0001.*Run `saga-engine migrate`"):
        async with Database(database_url, Settings()):
            pass
    await migrate.upgrade(database_url)
    async with Database(database_url, Settings()) as database:
        await database.check()
