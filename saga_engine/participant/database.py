"""
The participant's own database: one transaction for each command.

The user gives an engine of SQLAlchemy, which stays theirs to dispose of, or a URL, for which
`sqlalchemy_engine` creates one. Transactions are READ COMMITTED either way: the barrier needs it.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress

from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncTransaction

from saga_engine.errors import ConfigurationError, SagaEngineError, SchemaMismatch
from saga_engine.participant import barrier
from saga_engine.participant.barrier_statements import SEARCH_PATH_STATEMENTS, BarrierStatements
from saga_engine.participant.lost_statements import LostStatementMonitor
from saga_engine.participant.sql_barrier_table import SqlBarrierTable
from saga_engine.participant.sqlalchemy_engine import create_engine, display_url
from saga_engine.postgres import encoding, pgbouncer
from saga_engine.postgres.pool import ConnectionPool, discard, release
from saga_engine.postgres.session_changes import (
    ROLE_CHANGED_KEY,
    track_session_changes,
)
from saga_engine.postgres.sqlalchemy_errors import is_stale_connection, sqlstate_of, translate_error
from saga_engine.settings import Settings
from saga_engine.telemetry.events import Observer, describe_error


class HandlerRolledBack(Exception):
    """
    The handler did not succeed: its effects are rolled back, and `result` is the reply.

    The cause is the exception that the handler raised, if it is neither Rejected nor Failed.
    """

    def __init__(self, result: barrier.CommandResult) -> None:
        super().__init__()
        self.result = result


class DatabaseTransaction:
    """
    A CommandTransaction; its properties are described there.

    Args:
        connection: of the handler.
        transaction: of the connection.
        barrier: the barrier's table in it.
    """

    __slots__ = ("_transaction", "barrier", "connection")

    def __init__(
        self, connection: AsyncConnection, transaction: AsyncTransaction, barrier: SqlBarrierTable
    ) -> None:
        self.connection = connection
        self.barrier = barrier
        self._transaction = transaction

    @property
    def is_active(self) -> bool:
        """Whether the handler has neither committed it nor rolled it back."""
        return self._transaction.is_active

    @property
    def is_connection_lost(self) -> bool:
        """Whether its connection was lost, or closed by the server."""
        return self.connection.invalidated


class ParticipantDatabase:
    """One participant's database, a CommandDatabase."""

    def __init__(self, database: AsyncEngine | str, settings: Settings) -> None:
        self._owns_engine = isinstance(database, str)
        engine = create_engine(database, settings) if isinstance(database, str) else database
        if engine.dialect.name != "postgresql":
            raise ConfigurationError(
                f"The barrier works on PostgreSQL, not on {engine.dialect.name}. Leave database out"
                " and pass the idempotency key on instead."
            )
        self.display_url = display_url(engine.url)
        self._engine = engine
        self._pool = ConnectionPool(engine, settings) if self._owns_engine else None
        self._lost_statements = (
            LostStatementMonitor(engine, database, settings) if isinstance(database, str) else None
        )
        self._timeout = settings.database_transaction_timeout
        # For an engine of the user's: how long a session keeps its locks after its client is gone.
        self._idle_timeout_ms = f"{int(settings.participant_handler_timeout * 1000)}"
        self._statements = SEARCH_PATH_STATEMENTS
        # Whether a handler has changed its role in a way that its statements do not reveal.
        self._role_unknown = False
        event.listen(engine.sync_engine, "before_cursor_execute", track_session_changes)

    async def prepare(self, *, create_barrier: bool, schema: str | None = None) -> None:
        """
        Check that the database can be used, and find the barrier's table.

        Args:
            create_barrier: whether to create the table if it is missing.
            schema: the schema of the table; None: the search path.

        Raises:
            StoreError, ConfigurationError: it cannot be used; the text says why.
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
                f"synchronous_commit is off for {self.display_url}: a crash of PostgreSQL would"
                " lose effects whose replies were sent. Set it to on for this role or database."
            )
        if table_schema is None:
            raise ConfigurationError(
                self._missing_table_message(schema, session_settings.search_path)
            )
        self._statements = BarrierStatements.for_schema(table_schema)

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
            " engine has event listeners, correct them."
        )

    def _missing_table_message(self, schema: str | None, search_path: str) -> str:
        location = (
            f"in schema {schema}" if schema else f"in its search_path ({search_path or 'empty'})"
        )
        return (
            f"The database {self.display_url} has no table saga_barrier {location}. Add"
            " `barrier.table` to your migrations, let it be created with create_barrier=True, or"
            " name the schema that has it with Participant(barrier_schema=...)."
        )

    async def _refuse_named_statements(self) -> None:
        """Refuse a user's engine that names prepared statements and connects to a pooler."""
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
            " prepared statements must have no names. Give Participant the URL, or make the engine"
            " with connect_args={'prepared_statement_cache_size': 0,"
            " 'prepared_statement_name_func': lambda: ''}."
        )

    async def find_problem(self) -> str | None:
        """Describe what is wrong with the database now, in a sentence; None: nothing."""
        # Over a separate connection if possible: handlers may use all those of the pool.
        engine = self._lost_statements.probe_engine if self._lost_statements else self._engine
        try:
            async with asyncio.timeout(self._timeout), engine.connect() as connection:
                read_only = await connection.scalar(_SELECT_READ_ONLY)
        except Exception as error:  # noqa: BLE001 - any error is the answer
            return self.describe_error(error)
        return f"PostgreSQL at {self.display_url} is a standby or read-only." if read_only else None

    def describe_error(self, error: BaseException) -> str:
        """Describe an error of this database in a sentence, without the text of the error."""
        known_error = translate_error(error, self.display_url)
        if isinstance(known_error, SchemaMismatch):  # its text is about the engine's own tables
            return (
                f"The database {self.display_url} lacks the table saga_barrier, or a column of it."
            )
        return str(known_error or describe_error(error))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[DatabaseTransaction]:
        """Open one transaction: committed when the block ends, rolled back when it raises."""
        started_at = time.monotonic()
        connection = await (self._pool or self._engine).connect()
        try:
            if not self._owns_engine:
                connection = await connection.execution_options(isolation_level="READ COMMITTED")
            transaction = await connection.begin()
            barrier_table = await self._prepare_barrier_table(connection)
            try:
                yield DatabaseTransaction(connection, transaction, barrier_table)
            except Exception:
                await self._roll_back(connection, transaction)
                raise
            with self._watch_connection(connection):
                await transaction.commit()
        except asyncio.CancelledError:
            # A cancelled statement may leave the socket in the middle of a response, and a rollback
            # would wait for the rest. PostgreSQL rolls back when the connection is closed.
            await discard(connection)
            raise
        except Exception as error:
            await self._invalidate_after(connection, error, started_at)
            raise
        finally:
            if self._lost_statements:
                self._lost_statements.stop_watching(connection)
            await release(connection)

    async def _invalidate_after(
        self, connection: AsyncConnection, error: Exception, started_at: float
    ) -> None:
        """Invalidate the connections that an error shows to be stale."""
        # A handler's timeout, for example on another service, says nothing about this database.
        if self._pool and _is_stale_connection(error):
            self._pool.invalidate_before(started_at)
        if sqlstate_of(error) in _WRONG_ROLE_SQLSTATES and not connection.closed:
            self._role_unknown = True
            await discard(connection)  # its role may come from an earlier command

    async def _prepare_barrier_table(self, connection: AsyncConnection) -> SqlBarrierTable:
        """Prepare what recording a result needs; one round trip for an engine of the user's."""
        initial_role = None  # the session's role; a session that may have changed it is closed
        if not self._owns_engine:
            initial_role = await connection.scalar(
                _SET_IDLE_TIMEOUT, {"milliseconds": self._idle_timeout_ms}
            )
        connection.info[ROLE_CHANGED_KEY] = self._role_unknown
        return SqlBarrierTable(connection, self._statements, initial_role)

    async def _roll_back(self, connection: AsyncConnection, transaction: AsyncTransaction) -> None:
        """Roll back under the watch for lost statements."""
        try:
            with self._watch_connection(connection):
                await transaction.rollback()
        except Exception:  # noqa: BLE001 - PostgreSQL rolls back when the connection is closed
            with suppress(Exception):  # the handler's exception decides the reply, not this one
                await discard(connection)

    def _watch_connection(self, connection: AsyncConnection) -> AbstractContextManager[None]:
        return self._lost_statements.watch(connection) if self._lost_statements else nullcontext()

    async def run_lost_statement_monitor(self, emit: Observer) -> None:
        """End lost statements, until cancelled. An engine of the user's is not monitored."""
        if self._lost_statements:
            await self._lost_statements.run(emit)

    async def close(self) -> None:
        """Close the connections that were opened here."""
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


def _is_stale_connection(error: Exception) -> bool:
    """Whether an error shows that the connections of the pool are stale."""
    original_error = error.__cause__ if isinstance(error, HandlerRolledBack) else error
    if original_error is None or isinstance(original_error, TimeoutError):
        return False
    # A handler can make its own transaction read-only. Whether the server is a standby, the next
    # claim shows.
    return is_stale_connection(original_error) and (
        original_error is error or not sqlstate_of(original_error)
    )
