"""
The participant's own database: one transaction for one command.

An engine that is given stays the user's; one made here from a URL has a connection for each
handler that may run at once. Either way transactions are READ COMMITTED, which the barrier needs.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from functools import lru_cache

from sqlalchemy import URL, Connection, event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncTransaction

from saga_engine.errors import ConfigurationError, SagaEngineError, SchemaMismatch
from saga_engine.participant import barrier
from saga_engine.participant.lost_statements import APPLICATION_NAME, LostStatementMonitor
from saga_engine.postgres import encoding, pgbouncer
from saga_engine.postgres.connect import create_database_engine
from saga_engine.postgres.keepalive import (
    KEEPALIVE_IDLE,
    KEEPALIVE_INTERVAL,
    KEEPALIVE_PROBES,
    TCP_USER_TIMEOUT_MS,
)
from saga_engine.postgres.pool import ConnectionPool, discard
from saga_engine.postgres.sqlalchemy_errors import is_stale_connection, sqlstate_of, translate_error
from saga_engine.settings import Settings
from saga_engine.telemetry.events import Observer, describe_error


class HandlerRolledBack(Exception):
    """
    The effects of a handler are to be undone, and its command gets an answer that is no success.

    The cause is the exception that the handler raised, if it was not a refusal.
    """

    def __init__(self, result: barrier.CommandResult) -> None:
        super().__init__()
        self.result = result


class ParticipantDatabase:
    """One participant's database."""

    def __init__(self, database: AsyncEngine | str, settings: Settings) -> None:
        self._owns_engine = isinstance(database, str)
        engine = _create_engine(database, settings) if isinstance(database, str) else database
        if engine.dialect.name != "postgresql":
            raise ConfigurationError(
                f"The barrier works on PostgreSQL, not on {engine.dialect.name}. Leave database out"
                " and pass the idempotency key on instead."
            )
        self.display_url = _display_url(engine.url)
        self._engine = engine
        self._pool = ConnectionPool(engine, settings) if self._owns_engine else None
        self._lost_statements = (
            LostStatementMonitor(engine, database, settings) if isinstance(database, str) else None
        )
        self._timeout = settings.database_transaction_timeout
        # Nobody else's engine says for how long a session that is cut off keeps what it has locked.
        self._idle_timeout_ms = f"{int(settings.participant_handler_timeout * 1000)}"
        self._statements = barrier.SEARCH_PATH_STATEMENTS
        # Whether a handler has changed its role in a way that its statements do not show.
        self._role_unknown = False
        event.listen(engine.sync_engine, "before_cursor_execute", _track_session_changes)

    async def prepare(self, *, create_barrier: bool, schema: str | None = None) -> None:
        """
        Make sure that it can be used, and find the barrier's table: in *schema* if that is given.

        Raises:
            StoreError, ConfigurationError: it cannot; the text says why.
        """
        try:
            async with asyncio.timeout(self._timeout):
                await self._refuse_named_statements()
                async with self._engine.connect() as connection:
                    await encoding.check(connection, self.display_url)
                if create_barrier:
                    await barrier.create_table(self._engine, schema)
                async with self._engine.connect() as connection:
                    table_schema = await barrier.find_schema(connection, schema)
                    session_settings = (await connection.execute(_SELECT_SESSION_SETTINGS)).one()
        except Exception as error:  # noqa: BLE001 - listeners of the user's engine run here too
            raise self._unusable_error(error, schema) from None
        if session_settings.synchronous_commit == "off":
            raise ConfigurationError(
                f"synchronous_commit is off for {self.display_url}: a crash would lose effects"
                " whose"
                " commands were answered. Set it to on for this role or database."
            )
        if table_schema is None:
            raise ConfigurationError(
                self._missing_table_message(schema, session_settings.search_path)
            )
        self._statements = barrier.BarrierStatements.for_schema(table_schema)

    def _unusable_error(self, error: Exception, schema: str | None) -> SagaEngineError:
        if isinstance(error, SagaEngineError):
            return error
        if sqlstate_of(error) == _INVALID_SCHEMA_SQLSTATE:
            missing = f"The schema {schema} does not exist" if schema else "No schema"
            search_path_note = "" if schema else f" of its search_path exists ({_SEARCH_PATH_HINT})"
            return ConfigurationError(
                f"The table saga_barrier cannot be created in {self.display_url}."
                f" {missing}{search_path_note}."
                " Create the schema, or name another one with Participant(barrier_schema=...)."
            )
        known_error = translate_error(error, self.display_url)
        if isinstance(known_error, SchemaMismatch):
            return ConfigurationError(self.describe_error(error))
        return known_error or ConfigurationError(
            f"The database {self.display_url} cannot be used: {describe_error(error)}. If your"
            " engine has"
            " event listeners, correct them."
        )

    def _missing_table_message(self, schema: str | None, search_path: str) -> str:
        location = (
            f"in schema {schema}" if schema else f"in its search_path ({search_path or 'empty'})"
        )
        return (
            f"The database {self.display_url} has no table saga_barrier {location}. Add"
            " `barrier.table` to"
            " your migrations, let it be created with create_barrier=True, or name the schema that"
            " has it with Participant(barrier_schema=...)."
        )

    async def _refuse_named_statements(self) -> None:
        """Refuse an engine of the user's that cannot work through the pooler it connects to."""
        if self._owns_engine or self._engine.driver != "asyncpg":
            return
        async with self._engine.connect() as connection:
            raw_connection = await connection.get_raw_connection()
            adapter, driver = raw_connection.dbapi_connection, raw_connection.driver_connection
            if not await pgbouncer.leads_through_pooler(driver) or pgbouncer.is_pooler_safe(
                adapter
            ):
                return
        raise ConfigurationError(
            f"The engine for {self.display_url} connects through a connection pooler, where"
            " prepared"
            " statements must have no names. Give Participant the URL instead, or make the engine"
            " with connect_args={'prepared_statement_cache_size': 0,"
            " 'prepared_statement_name_func': lambda: ''}."
        )

    async def find_problem(self) -> str | None:
        """What is wrong with it now, in a sentence; None: nothing."""
        # Over a connection of its own where possible: handlers may have all those of the pool.
        engine = self._lost_statements.probe_engine if self._lost_statements else self._engine
        try:
            async with asyncio.timeout(self._timeout), engine.connect() as connection:
                read_only = await connection.scalar(_SELECT_READ_ONLY)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what is asked for
            return self.describe_error(error)
        return f"PostgreSQL at {self.display_url} is a standby or read-only." if read_only else None

    def describe_error(self, error: BaseException) -> str:
        """Say in a sentence what an error of this database is, without its text."""
        known_error = translate_error(error, self.display_url)
        if isinstance(known_error, SchemaMismatch):  # its advice is about the engine's own tables
            return (
                f"The database {self.display_url} lacks the table saga_barrier, or a column of it."
            )
        return str(known_error or describe_error(error))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Open one transaction: committed when the block ends, rolled back when it raises."""
        started_at = time.monotonic()
        connection = await (self._pool or self._engine).connect()
        try:
            if not self._owns_engine:
                connection = await connection.execution_options(isolation_level="READ COMMITTED")
            transaction = await connection.begin()
            await self._prepare_transaction(connection)
            try:
                yield connection
            except Exception:
                await self._roll_back(connection, transaction)
                raise
            with self._watch_connection(connection):
                await transaction.commit()
        except asyncio.CancelledError:
            # A cancelled statement may leave the socket in the middle of an answer, and a rollback
            # would wait for it. The server undoes what a closed connection leaves.
            await discard(connection)
            raise
        except Exception as error:
            await self._invalidate_after(connection, error, started_at)
            raise
        finally:
            if self._lost_statements:
                self._lost_statements.stop_watching(connection)
            await self._release(connection)

    async def _invalidate_after(
        self, connection: AsyncConnection, error: Exception, started_at: float
    ) -> None:
        """Decide what an error says of this connection, and of those opened before *begun*."""
        # A handler that waited in vain for another service says nothing of this database.
        if self._pool and _is_stale_connection(error):
            self._pool.invalidate_before(started_at)
        if sqlstate_of(error) in _WRONG_ROLE_SQLSTATES and not connection.closed:
            self._role_unknown = True
            await discard(connection)  # its role may be that of an earlier command

    async def _prepare_transaction(self, connection: AsyncConnection) -> None:
        """Note what the barrier needs at the end, in the round trip that is made anyway."""
        initial_role = (
            None  # that of the session: sessions of ours are closed when it may have changed
        )
        if not self._owns_engine:
            initial_role = await connection.scalar(
                _SET_IDLE_TIMEOUT, {"milliseconds": self._idle_timeout_ms}
            )
        connection.info.update(
            {
                barrier.INITIAL_ROLE_KEY: initial_role,
                barrier.STATEMENTS_KEY: self._statements,
                barrier.ROLE_CHANGED_KEY: self._role_unknown,
            }
        )

    async def _release(self, connection: AsyncConnection) -> None:
        """Give a connection back, or close it when its session's settings may have changed."""
        usable = not connection.closed and not connection.invalidated
        if usable and connection.info.pop(_SESSION_CHANGED_KEY, False):
            await discard(connection)
        await connection.close()

    async def _roll_back(self, connection: AsyncConnection, transaction: AsyncTransaction) -> None:
        """Roll back while it is watched, which closing the connection is not."""
        try:
            with self._watch_connection(connection):
                await transaction.rollback()
        except Exception:  # noqa: BLE001 - the server undoes what a closed connection leaves
            with suppress(Exception):  # what the handler raised is the answer, whatever this does
                await discard(connection)

    def _watch_connection(self, connection: AsyncConnection) -> AbstractContextManager[None]:
        return self._lost_statements.watch(connection) if self._lost_statements else nullcontext()

    async def run_lost_statement_monitor(self, emit: Observer) -> None:
        """End what is lost on the way, until cancelled; an engine that is given is its user's."""
        if self._lost_statements:
            await self._lost_statements.run(emit)

    async def close(self) -> None:
        """Close what was opened here."""
        if self._lost_statements:
            await self._lost_statements.close()
            await self._engine.dispose()


_SELECT_SESSION_SETTINGS = text(
    "SELECT pg_catalog.current_setting('synchronous_commit') AS synchronous_commit,"
    " pg_catalog.current_setting('search_path') AS search_path"
)
_SELECT_READ_ONLY = text("SELECT pg_catalog.current_setting('transaction_read_only') = 'on'")
_SET_IDLE_TIMEOUT = text(
    "SELECT pg_catalog.current_setting('role') FROM (SELECT pg_catalog.set_config("
    "'idle_in_transaction_session_timeout', :milliseconds, true)) AS idle_timeout"
)

_INVALID_SCHEMA_SQLSTATE = "3F000"
_WRONG_ROLE_SQLSTATES = ("42501", "42P01")
_SEARCH_PATH_HINT = "it may be set with ALTER ROLE"

_SCANNED_CHARACTERS = 4_000
"""Characters of a statement that are searched for changes of the session."""

_SCAN_CACHE_SIZE = 512
"""Statements whose search is remembered: the same ones come with each command. 8 MB at most."""

_SESSION_CHANGED_KEY = "saga_engine_session_changed"

# Statements that may change the role, and those whose changes outlive the transaction. The session
# of the latter is closed afterwards, or the next command would run with them.
_ROLE_CHANGE_PATTERN = re.compile(
    r"(?is)\b(?:set|reset|discard)\b.{0,200}?\b(?:role|authorization|all)\b|\bset_config\b"
)
_COMMENT_PATTERN = re.compile(r"(?s)/\*.*?\*/|--[^\n]*")
_SESSION_CHANGE_PATTERN = re.compile(
    r"(?i)(?:^|;)\s*(?:reset|discard|set\s+(?!local\b|transaction\b|constraints\b))"
    r"|\bset_config\s*\((?!(?:[^()]|\([^()]*\))*,\s*(?:true|'t'|'true')\s*\))"
)


def _is_stale_connection(error: Exception) -> bool:
    """Whether the connections of the pool are not to be used again."""
    original_error = error.__cause__ if isinstance(error, HandlerRolledBack) else error
    if original_error is None or isinstance(original_error, TimeoutError):
        return False
    # A handler can make its own transaction read-only; whether the server is, the next claim shows.
    return is_stale_connection(original_error) and (
        original_error is error or not sqlstate_of(original_error)
    )


def _track_session_changes(connection: Connection, _: object, statement: str, *__: object) -> None:
    changes_role, changes_session = _scan_statement(statement[:_SCANNED_CHARACTERS])
    if changes_role:
        connection.info[barrier.ROLE_CHANGED_KEY] = True
    if changes_session:
        connection.info[_SESSION_CHANGED_KEY] = True


@lru_cache(maxsize=_SCAN_CACHE_SIZE)
def _scan_statement(prefix: str) -> tuple[bool, bool]:
    """Whether a statement that begins so may change the role, and what outlives a transaction."""
    if "--" in prefix or "/*" in prefix:
        prefix = _COMMENT_PATTERN.sub(" ", prefix)
    return bool(_ROLE_CHANGE_PATTERN.search(prefix)), bool(_SESSION_CHANGE_PATTERN.search(prefix))


def _display_url(url: URL) -> str:
    """Give what may be shown of a URL: its query can hold a password as well."""
    hosts = url.query.get("host", "localhost")
    host = url.host or (hosts if isinstance(hosts, str) else ",".join(hosts))
    port = f":{url.port}" if url.port else ""
    return f"{url.username or ''}@{host}{port}/{url.database or ''}"


def _create_engine(url: str, settings: Settings) -> AsyncEngine:
    timeout_ms = f"{settings.participant_handler_timeout * 1000:.0f}"
    return create_database_engine(
        url,
        pool_size=settings.participant_concurrency,
        max_overflow=0,
        pool_timeout=settings.participant_handler_timeout,
        pool_use_lifo=True,
        hide_parameters=True,
        connect_args={
            "timeout": settings.database_connect_timeout,
            "command_timeout": settings.participant_handler_timeout,
            "server_settings": {
                "application_name": APPLICATION_NAME,
                "default_transaction_isolation": "read committed",
                # Who is cut off in the middle of a command has it in hand, and all further attempts
                # wait for that: until then at most, or until the server finds its host gone.
                "statement_timeout": timeout_ms,
                "idle_in_transaction_session_timeout": timeout_ms,
                "tcp_keepalives_idle": f"{KEEPALIVE_IDLE}",
                "tcp_keepalives_interval": f"{KEEPALIVE_INTERVAL}",
                "tcp_keepalives_count": f"{KEEPALIVE_PROBES}",
                "tcp_user_timeout": f"{TCP_USER_TIMEOUT_MS}",
            },
        },
    )
