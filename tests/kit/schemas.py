"""Databases at revisions other than the newest."""

import io

from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from saga_engine.store import migrate
from saga_engine.store.schema import ENGINE, EVENTS


def config(lineage):
    """Alembic's view of our migrations."""
    return migrate._config(lineage, io.StringIO())


def migrations(lineage=ENGINE):
    """Every migration, the first one first."""
    return [*ScriptDirectory.from_config(config(lineage)).walk_revisions()][::-1]


def statements(script, lineage=ENGINE):
    """What one migration does, as SQL."""
    written = io.StringIO()
    steps = f"{script.down_revision}:{script.revision}"
    command.upgrade(migrate._config(lineage, written), steps, sql=True)
    return written.getvalue()


async def migrate_to(url, revision):
    """Bring an empty database to a revision of the engine's tables."""

    def upgrade(connection):
        for lineage, target in ((EVENTS, "head"), (ENGINE, revision)):
            configured = config(lineage)
            configured.attributes["connection"] = connection
            command.upgrade(configured, target)

    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.begin() as connection:
        await connection.run_sync(upgrade)
    await engine.dispose()


async def set_newer_revision(url, revision, *, min_code_revision):
    """Leave a database as a version of the future would."""
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.begin() as connection:
        named = {"revision": revision, "min_code_revision": min_code_revision}
        await connection.execute(
            text("UPDATE saga_engine.alembic_version SET version_num = :revision"), named
        )
        await connection.execute(
            text("INSERT INTO saga_engine.schema_revision VALUES (:revision, :min_code_revision)"),
            named,
        )
    await engine.dispose()
