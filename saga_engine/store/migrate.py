"""
Upgrades of a database to this version's schema, with alembic and without an ini file.

The migrations are `migrations/` in a checkout and `saga_engine/_migrations/` in an installed wheel.
If several processes upgrade at once, one does it and the others wait and find nothing to do. A
downgrade does not exist; restore a backup instead.
"""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import NullPool

from saga_engine.errors import SchemaMismatch, StoreLockTimeout
from saga_engine.postgres import encoding
from saga_engine.postgres.connect import create_database_engine
from saga_engine.postgres.sqlalchemy_errors import translate_error
from saga_engine.postgres.url import parse_database_url
from saga_engine.store import schema
from saga_engine.store.database import SqlAlchemyTransaction
from saga_engine.store.tables import SCHEMA

LOCK_TIMEOUT = 1.0
LOCK_RETRY_WINDOW = 60.0
_ADVISORY_LOCK_ID = 0x5A6A  # any number that is the same in every version of the engine
_LOCK_HINT = (
    "A transaction holds a table that the migration changes; nothing was changed. End it"
    " (pg_stat_activity shows the oldest), then run `saga-engine migrate` again."
)
_CONNECT_TIMEOUT = 60.0  # asyncpg's default, explicit because the hosts of a URL share it
_PACKAGE = Path(__file__).resolve().parent.parent


async def upgrade(
    url: str, *, lock_timeout: float = LOCK_TIMEOUT, retry_window: float = LOCK_RETRY_WINDOW
) -> None:
    """
    Apply the missing migrations, in one transaction.

    ALTER TABLE needs a lock, and every later statement on the table waits behind it. So a try waits
    for *lock_timeout* seconds, gives the waiting statements their turn, and is repeated for up to
    *retry_window* seconds. A database that a newer version has migrated is not changed.

    Raises:
        SchemaMismatch: the database is ahead, and this version cannot work with it.
        StoreLockTimeout: another transaction held a table in each try; nothing was changed.
        StoreUnavailable: the database is unavailable, or the role may not create a schema.
        ConfigurationError: its encoding is not UTF8.
    """
    now = asyncio.get_running_loop().time
    retry_until = now() + retry_window
    while True:
        try:
            await _upgrade_once(url, lock_timeout)
        except StoreLockTimeout as lock_error:
            if now() >= retry_until:
                raise StoreLockTimeout(f"{lock_error} {_LOCK_HINT}") from None
            await asyncio.sleep(lock_timeout)
        else:
            return


async def _upgrade_once(url: str, lock_timeout: float) -> None:
    async with _connect(url) as connection, connection.begin():
        # Held until the end of the transaction (PostgreSQL manual, 13.3.5).
        await connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK_ID})"))
        await connection.execute(text(f"SET LOCAL lock_timeout = {lock_timeout * 1000:.0f}"))
        if await _is_behind(connection, await connection.run_sync(_revisions)):
            await connection.run_sync(_upgrade)


async def outdated_reason(url: str) -> str | None:
    """Say why the database does not have this version's schema; None when it has."""
    async with _connect(url) as connection:
        revisions = await connection.run_sync(_revisions)
        try:
            if not await _is_behind(connection, revisions):
                return None
        except SchemaMismatch as mismatch:
            return str(mismatch)
    current_state = (
        f"is at revision {revisions.current}" if revisions.current else "has no saga-engine schema"
    )
    return (
        f"The database {current_state}, this version needs {revisions.head}. Run"
        " `saga-engine migrate`."
    )


@asynccontextmanager
async def _connect(url: str) -> AsyncIterator[AsyncConnection]:
    address = parse_database_url(url).without_password
    engine = create_database_engine(
        url,
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={"timeout": _CONNECT_TIMEOUT},
    )
    try:
        async with engine.connect() as connection:
            await encoding.check_from_driver(connection, address)
            yield connection
    except Exception as error:
        engine_error = translate_error(error, address)
        if engine_error is None:
            raise
        raise engine_error from None
    finally:
        await engine.dispose()


def upgrade_sql() -> str:
    """Return what `upgrade` does to an empty database, as SQL for a reader or for psql."""
    output = io.StringIO()
    command.upgrade(_config(output), "head", sql=True)
    return output.getvalue()


@dataclass(frozen=True, slots=True)
class _Revisions:
    """The revision of a database, the newest revision of this version, and all of them."""

    current: str | None
    head: str | None
    known: frozenset[str]


def _revisions(connection: Connection) -> _Revisions:
    context = MigrationContext.configure(connection, opts={"version_table_schema": SCHEMA})
    scripts = ScriptDirectory.from_config(_config(io.StringIO()))
    known = frozenset(script.revision for script in scripts.walk_revisions())
    return _Revisions(context.get_current_revision(), scripts.get_current_head(), known)


async def _is_behind(connection: AsyncConnection, revisions: _Revisions) -> bool:
    """
    Whether migrations are missing.

    Raises:
        SchemaMismatch: a newer version has migrated it, and this one cannot work with it.
    """
    if revisions.current is None or revisions.current in revisions.known:
        return revisions.current != revisions.head
    if problem := await schema.schema_problem(SqlAlchemyTransaction(connection)):
        raise SchemaMismatch(f"The database {problem}")
    return False


def _upgrade(connection: Connection) -> None:
    config = _config(io.StringIO())
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _config(output: io.StringIO) -> Config:
    config = Config(output_buffer=output, stdout=output)
    config.set_main_option("script_location", str(_migrations_directory()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _migrations_directory() -> Path:
    installed = _PACKAGE / "_migrations"
    return installed if installed.is_dir() else _PACKAGE.parent / "migrations"
