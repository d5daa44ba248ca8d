"""
The participant's own database: one transaction for each command.

The user gives an engine of SQLAlchemy, which stays theirs to dispose of, or a URL, for which
`sqlalchemy_engine` creates one. Transactions are READ COMMITTED either way: the barrier needs it.
"""

import asyncio
from contextlib import AbstractAsyncContextManager

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from saga_engine.errors import ConfigurationError, SagaEngineError, SchemaMismatch
from saga_engine.participant import barrier
from saga_engine.participant.engine_transactions import EngineTransaction, EngineTransactions
from saga_engine.participant.lost_statements import LostStatementMonitor
from saga_engine.participant.shared_transaction import SharedUrlTransaction
from saga_engine.participant.sqlalchemy_engine import create_engine, display_url
from saga_engine.participant.url_transactions import UrlTransaction, UrlTransactions
from saga_engine.postgres import encoding, pgbouncer
from saga_engine.postgres.session_changes import track_changes, track_changes_by_sqlalchemy
from saga_engine.postgres.sqlalchemy_errors import sqlstate_of, translate_error
from saga_engine.settings import Settings
from saga_engine.telemetry.events import Observer, describe_error


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
        self._timeout = settings.database_transaction_timeout
        self._lost_statements: LostStatementMonitor | None = None
        self._transactions: EngineTransactions | UrlTransactions
        if isinstance(database, str):
            self._lost_statements = LostStatementMonitor(engine, database, settings)
            self._transactions = UrlTransactions(engine, self._lost_statements, settings)
            track_changes(engine)
        else:
            self._transactions = EngineTransactions(engine, settings)
            track_changes_by_sqlalchemy(engine)

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
        self._transactions.use_schema(table_schema)

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

    def transaction(self) -> AbstractAsyncContextManager[EngineTransaction | UrlTransaction]:
        """Open one transaction: committed when the block ends, rolled back when it raises."""
        if isinstance(self._transactions, UrlTransactions):
            return self._transactions.transaction(UrlTransaction)
        return self._transactions.transaction()

    def shared_transaction(self) -> AbstractAsyncContextManager[SharedUrlTransaction]:
        """Open a transaction of several commands, on a database that was given as a URL."""
        assert isinstance(self._transactions, UrlTransactions), "Participant requires a URL"
        return self._transactions.transaction(SharedUrlTransaction)

    async def run_lost_statement_monitor(self, emit: Observer) -> None:
        """End lost statements, until cancelled. An engine of the user's is not monitored."""
        if self._lost_statements:
            await self._lost_statements.run(emit)

    async def close(self) -> None:
        """Close the connections that were opened here."""
        await self._transactions.close()
        if self._lost_statements:
            await self._lost_statements.close()
            await self._engine.dispose()


_SELECT_SESSION_SETTINGS = text(
    "SELECT pg_catalog.current_setting('synchronous_commit') AS synchronous_commit,"
    " pg_catalog.current_setting('search_path') AS search_path"
)
_SELECT_READ_ONLY = text("SELECT pg_catalog.current_setting('transaction_read_only') = 'on'")
_INVALID_SCHEMA_SQLSTATE = "3F000"
_SEARCH_PATH_HINT = "it may be set with ALTER ROLE"
