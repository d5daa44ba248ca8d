"""
Upgrades of a database to this version's schema, with alembic and without an ini file.

The migrations are `migrations/` in a checkout and `saga_engine/_migrations/` in an installed wheel:
`versions/` makes the engine's tables, `events/` the event tables, see `store.schema`.
If several processes upgrade at once, one does it and the others wait and find nothing to do. A
downgrade does not exist; restore a backup instead.
"""

import asyncio
import io
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import NullPool

from saga_engine.errors import SchemaMismatch, StoreLockTimeout
from saga_engine.postgres import encoding
from saga_engine.postgres.connect import create_database_engine
from saga_engine.postgres.sqlalchemy_errors import sqlstate_of, translate_error
from saga_engine.postgres.url import parse_database_url
from saga_engine.store import schema
from saga_engine.store.database import SqlAlchemyTransaction
from saga_engine.store.schema import ENGINE_DATABASE, Lineage, Lineages
from saga_engine.store.tables import SCHEMA

LOCK_TIMEOUT = 1.0
LOCK_RETRY_WINDOW = 60.0
_ADVISORY_LOCK_ID = 0x5A6A  # any number that is the same in every version of the engine
_LOCK_HINT = (
    "A transaction holds a table that the migration changes; nothing was changed. End it"
    " (pg_stat_activity shows the oldest), then run `saga-engine migrate` again."
)
_INSUFFICIENT_PRIVILEGE = "42501"
_CONNECT_TIMEOUT = 60.0  # asyncpg's default, explicit because the hosts of a URL share it
_PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Upgraded:
    """
    The revisions of a lineage before and after an upgrade, which are equal if it changed nothing.

    Args:
        lineage: see Lineage.
        before: None: the database had none of its tables.
        after: this version's, or that of a newer version.
    """

    lineage: Lineage
    before: str | None
    after: str


async def upgrade(
    url: str,
    lineages: Lineages = ENGINE_DATABASE,
    *,
    lock_timeout: float = LOCK_TIMEOUT,
    retry_window: float = LOCK_RETRY_WINDOW,
) -> Sequence[Upgraded]:
    """
    Apply the missing migrations of *lineages*, in one transaction.

    ALTER TABLE needs a lock, and every later statement on the table waits behind it. So a try waits
    for *lock_timeout* seconds, gives the waiting statements their turn, and is repeated for up to
    *retry_window* seconds. A database that a newer version has migrated is not changed.

    Returns:
        The revisions of each lineage before and after, in the order of *lineages*.

    Raises:
        SchemaMismatch: the database is ahead, and this version cannot work with it; or it has
            tables that no migration of this version has made.
        StoreLockTimeout: another transaction held a table in each try; nothing was changed.
        StoreUnavailable: the database is unavailable, or the role may not create a schema.
        ConfigurationError: its encoding is not UTF8.
    """
    now = asyncio.get_running_loop().time
    retry_until = now() + retry_window
    while True:
        try:
            return await _upgrade_once(url, lineages, lock_timeout)
        except StoreLockTimeout as lock_error:
            if now() >= retry_until:
                raise StoreLockTimeout(f"{lock_error} {_LOCK_HINT}") from None
            await asyncio.sleep(lock_timeout)


async def _upgrade_once(url: str, lineages: Lineages, lock_timeout: float) -> Sequence[Upgraded]:
    upgraded: list[Upgraded] = []
    async with _connect(url) as connection, connection.begin():
        # Held until the end of the transaction (PostgreSQL manual, 13.3.5).
        await connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK_ID})"))
        await connection.execute(text(f"SET LOCAL lock_timeout = {lock_timeout * 1000:.0f}"))
        for lineage in lineages:
            before = (await connection.run_sync(_revisions, lineage)).current
            if not await _is_behind(connection, lineage):
                upgraded.append(Upgraded(lineage, before, before or ""))
                continue
            try:
                await connection.run_sync(_upgrade, lineage)
            except SQLAlchemyError as error:
                if not _is_about_an_object(sqlstate_of(error)):
                    raise
                raise _unknown_schema(url, lineage) from error
            upgraded.append(Upgraded(lineage, before, lineage.revision))
    return upgraded


def _is_about_an_object(sqlstate: str) -> bool:
    """Whether a table, a column or a function exists already, is missing or is another one."""
    return sqlstate.startswith("42") and sqlstate != _INSUFFICIENT_PRIVILEGE


def _unknown_schema(url: str, lineage: Lineage) -> SchemaMismatch:
    return SchemaMismatch(
        f"The database {parse_database_url(url).without_password} has tables in the schema {SCHEMA}"
        f" to which the migrations of this version ({lineage.name}) do not apply: an unreleased"
        " version made them. Nothing was changed. Create the database anew, or restore it from a"
        " backup of a released version."
    )


async def outdated_reason(url: str, lineages: Lineages = ENGINE_DATABASE) -> str | None:
    """Say why the database does not have this version's schema; None when it has."""
    async with _connect(url) as connection:
        # The last lineage first: its command applies those that it builds on as well.
        for lineage in reversed(lineages):
            try:
                if await _is_behind(connection, lineage):
                    return await _how_outdated(connection, lineage)
            except SchemaMismatch as mismatch:
                return str(mismatch)
    return None


async def _how_outdated(connection: AsyncConnection, lineage: Lineage) -> str:
    current = (await connection.run_sync(_revisions, lineage)).current
    state = f"is at revision {current} ({lineage.name})" if current else f"has no {lineage.name}"
    return f"The database {state}, this version needs {lineage.revision}. Run `{lineage.command}`."


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


def upgrade_sql(lineages: Lineages = ENGINE_DATABASE) -> str:
    """Return what `upgrade` does to an empty database, as SQL for a reader or for psql."""
    output = io.StringIO()
    for lineage in lineages:
        command.upgrade(_config(lineage, output), "head", sql=True)
    return output.getvalue()


@dataclass(frozen=True, slots=True)
class _Revisions:
    """The revision of a database, the newest revision of this version, and all of them."""

    current: str | None
    head: str | None
    known: frozenset[str]


def _revisions(connection: Connection, lineage: Lineage) -> _Revisions:
    options = {"version_table_schema": SCHEMA, "version_table": lineage.version_table}
    context = MigrationContext.configure(connection, opts=options)
    scripts = ScriptDirectory.from_config(_config(lineage, io.StringIO()))
    known = frozenset(script.revision for script in scripts.walk_revisions())
    return _Revisions(context.get_current_revision(), scripts.get_current_head(), known)


async def _is_behind(connection: AsyncConnection, lineage: Lineage) -> bool:
    """
    Whether migrations are missing.

    Raises:
        SchemaMismatch: a newer version has migrated it, and this one cannot work with it.
    """
    revisions = await connection.run_sync(_revisions, lineage)
    if revisions.current is None or revisions.current in revisions.known:
        return revisions.current != revisions.head
    if problem := await schema.schema_problem(SqlAlchemyTransaction(connection), lineage):
        raise SchemaMismatch(f"The database {problem}")
    return False


def _upgrade(connection: Connection, lineage: Lineage) -> None:
    config = _config(lineage, io.StringIO())
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _config(lineage: Lineage, output: io.StringIO) -> Config:
    config = Config(output_buffer=output, stdout=output)
    directory = _migrations_directory()
    config.set_main_option("path_separator", "newline")  # which a path does not have
    config.set_main_option("script_location", _escaped(directory))
    config.set_main_option("version_locations", _escaped(directory / lineage.directory))
    config.attributes["version_table"] = lineage.version_table
    return config


def _escaped(path: Path) -> str:
    """Write a path as a value of an ini file, in which a percent sign begins a reference."""
    return str(path).replace("%", "%%")


def _migrations_directory() -> Path:
    installed = _PACKAGE / "_migrations"
    return installed if installed.is_dir() else _PACKAGE.parent / "migrations"
