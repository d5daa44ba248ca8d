"""Databases at revisions other than the newest."""

import io

from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from saga_engine.store import migrate


def config():
    """Alembic's view of our migrations."""
    return migrate._config(io.StringIO())


def migrations():
    """Every migration, the first one first."""
    return [*ScriptDirectory.from_config(config()).walk_revisions()][::-1]


def statements(script):
    """What one migration does, as SQL."""
    written = io.StringIO()
    command.upgrade(migrate._config(written), f"{script.down_revision}:{script.revision}", sql=True)
    return written.getvalue()


async def migrate_to(url, revision):
    """Bring an empty database to a revision."""

    def upgrade(connection):
        configured = config()
        configured.attributes["connection"] = connection
        command.upgrade(configured, revision)

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
