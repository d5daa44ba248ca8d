"""
The database of a process that serves: a connection pool, and one transaction for each unit of work.

A transaction is limited on both sides: here by a timeout, in PostgreSQL by the limits of the
session. Errors of the driver become errors of the engine, see `postgres.errors`. Nothing is retried
here: after a lost COMMIT it is unknown whether the transaction was committed, so the caller reads
again by key.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import orjson
from sqlalchemy import Executable
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from saga_engine.errors import SagaEngineError, StoreUnavailable
from saga_engine.lifecycle import AsyncResource
from saga_engine.postgres import pgbouncer
from saga_engine.postgres.connect import create_database_engine
from saga_engine.postgres.pool import ConnectionPool, discard, release
from saga_engine.postgres.session_changes import track_changes
from saga_engine.postgres.session_limits import session_arguments
from saga_engine.postgres.sqlalchemy_errors import is_stale_connection, translate_error
from saga_engine.postgres.statement import Rows, Statement
from saga_engine.postgres.url import parse_database_url
from saga_engine.settings import Settings
from saga_engine.store import database_check, position_sequence
from saga_engine.store.json_column import dumps
from saga_engine.store.schema import ENGINE_DATABASE, Lineages


class SqlAlchemyTransaction:
    """
    A transaction on a connection of SQLAlchemy, for the functions of this package.

    Only the code that began the transaction commits it or rolls it back.

    Args:
        connection: executes statements that are composed with SQLAlchemy.
        adapter: SQLAlchemy's adapter of the driver's connection, when `Database` opened it.
        epoch: see `statement.BatchOfStatements`.
    """

    def __init__(
        self, connection: AsyncConnection, adapter: Any = None, epoch: int | None = None
    ) -> None:
        self.connection = connection
        self.epoch = epoch
        self._adapter = adapter
        self._driver: pgbouncer.PoolerAwareConnection | None = (
            None if adapter is None else adapter.driver_connection
        )
        self._driver_transaction: Any = None
        self._is_untouched = True

    @property
    def is_reusable(self) -> bool:
        """Whether nothing has started, and the connection is as it was before."""
        return self._is_untouched and self._driver is not None and not self._driver.is_closed()

    @property
    def has_started(self) -> bool:
        """Whether the statements are one transaction; before that, each commits on its own."""
        return self._driver_transaction is not None

    async def begin(self) -> None:
        """Make the next statements one transaction, unless they are."""
        if self._driver_transaction is None:
            assert self._driver is not None, "only `Database` opens a connection without BEGIN"
            self._is_untouched = False
            driver_transaction = self._driver.transaction()
            await driver_transaction.start()
            # Or SQLAlchemy begins another one.
            self._driver_transaction = self._adapter._transaction = driver_transaction  # noqa: SLF001

    async def commit(self) -> None:
        """Commit what has started; only `Database` calls it."""
        if self._driver_transaction is not None:
            self._adapter._transaction = None  # noqa: SLF001 - or SQLAlchemy rolls it back
            await self._driver_transaction.commit()

    @property
    def is_open(self) -> bool:
        """Whether it was neither committed nor rolled back, by SQL or by other means."""
        return self._driver is not None and self._driver.is_in_transaction()

    @property
    def is_lost(self) -> bool:
        """Whether the connection is closed, so that the server rolls back."""
        return self._driver is None or self._driver.is_closed()

    @contextmanager
    def kept_open(self, error: Callable[[], Exception]) -> Iterator[None]:
        """Raise *error* for each statement in the block that would end the transaction."""
        driver = self._driver
        if driver is None:
            yield
            return
        driver.end_of_transaction = error
        try:
            yield
        finally:
            driver.end_of_transaction = None

    def close(self) -> None:
        """Refuse further statements: the connection returns to the pool."""
        self._driver = None

    async def copy(
        self,
        table: str,
        schema: str | None,
        columns: Sequence[str],
        rows: Sequence[Sequence[Any]],
    ) -> None:
        """Insert rows with COPY; only in a transaction that `Database` began."""
        assert self._driver is not None, "the driver has no transaction"
        await self._driver.copy_records_to_table(
            table, schema_name=schema, columns=columns, records=rows
        )

    async def execute(
        self, statement: Statement | Executable, parameters: Mapping[str, Any] | None = None
    ) -> Rows:
        """
        Execute one statement: as text, or composed with SQLAlchemy.

        Text goes directly to the driver: SQLAlchemy has nothing to add to it and would double the
        processor time.
        """
        if isinstance(statement, Statement) and self._driver is not None:
            return await self._driver.execute_statement(statement, parameters)
        clause = statement.sqlalchemy_clause if isinstance(statement, Statement) else statement
        rows: Rows = await self.connection.execute(clause, parameters)
        return rows


class Database(AsyncResource):
    """
    A connection pool of one database; `async with` opens and closes it.

    Entering it checks that the database is usable, see `check`, and that new events get positions
    above those that are stored, see `position_sequence`.

    Args:
        url: where it is.
        settings: of the pool and the timeouts.
        lineages: which tables it must have.
        runs_user_sql: whether a user's functions execute SQL over its connections; one whose
            session they may have changed is closed after the transaction.
    """

    def __init__(
        self,
        url: str,
        settings: Settings,
        lineages: Lineages = ENGINE_DATABASE,
        *,
        runs_user_sql: bool = False,
    ) -> None:
        self._lineages = lineages
        self._address = parse_database_url(url).without_password
        self._timeout = settings.database_transaction_timeout
        self._timed_out = (
            f"PostgreSQL at {self._address} did not answer in time: to connect it has"
            f" {settings.database_connect_timeout:g} s (SAGA_ENGINE_DATABASE_CONNECT_TIMEOUT), for"
            f" a transaction {self._timeout:g} s (SAGA_ENGINE_DATABASE_TRANSACTION_TIMEOUT). If"
            " this lasts, see whether it or this machine is overloaded, or raise them."
        )
        self._engine = _create_pool(url, settings)
        self._pool = ConnectionPool(self._engine, settings)
        if runs_user_sql:
            track_changes(self._engine)

    async def _open(self, resources: AsyncExitStack) -> None:
        resources.push_async_callback(self._engine.dispose)
        await self.check()
        async with self.transaction() as tx:
            await position_sequence.require_ahead(tx, self._address)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqlAlchemyTransaction]:
        """
        Open one transaction: committed when the block ends, rolled back when it raises.

        Raises:
            StoreUnavailable: try again later; whether it was committed is unknown.
            StoreRefused: PostgreSQL refuses the data; a retry would fail too.
            SchemaMismatch: the tables are not those of this version.
        """
        async with self.batch() as batch:
            await batch.begin()
            yield batch

    @asynccontextmanager
    async def batch(self) -> AsyncIterator[SqlAlchemyTransaction]:
        """
        Open a transaction that begins only with its `begin`; before, each statement commits alone.

        Behind a pooler it begins at once, because a statement needs two messages.

        Raises:
            StoreUnavailable, StoreRefused, SchemaMismatch: as `transaction`.
        """
        started_at = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout), self._connect() as transaction:
                yield transaction
        except Exception as error:
            if is_stale_connection(error):
                self._pool.invalidate_before(started_at)
            if isinstance(error, TimeoutError):
                raise StoreUnavailable(self._timed_out) from None
            engine_error = translate_error(error, self._address)
            if engine_error is None:
                raise
            raise engine_error from None

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[SqlAlchemyTransaction]:
        connection = await self._pool.connect()
        adapter: Any = (await connection.get_raw_connection()).dbapi_connection
        uses_pooler = adapter.driver_connection.uses_pooler()
        epoch = None if uses_pooler else self._pool.opened_count
        transaction = SqlAlchemyTransaction(connection, adapter, epoch)
        try:
            if uses_pooler:
                await transaction.begin()
            yield transaction
            await transaction.commit()
        except asyncio.CancelledError:
            # After a cancelled statement the socket may be dead or in the middle of an answer, and
            # a rollback would wait for it. The server rolls back when the connection is closed.
            await discard(connection)
            raise
        except Exception as error:
            if is_stale_connection(error) or not transaction.is_reusable:
                await _rollback(connection, adapter)
            raise
        finally:
            transaction.close()
            await release(connection)

    async def check(self) -> None:
        """
        Check that the database answers, does not lose confirmed commits, and has the tables.

        Raises:
            StoreUnavailable: it does not answer.
            SchemaMismatch: its schema is too old or too new for this version.
            ConfigurationError: synchronous_commit is off, so confirmed commits could be lost; or
                its encoding is not UTF8, so it cannot store every text.
        """
        async with self.transaction() as tx:
            await database_check.check_database(tx, self._address, self._lineages)

    async def find_problem(self) -> str | None:
        """Describe what `check` finds wrong now, in a sentence; None: nothing."""
        try:
            await self.check()
        except SagaEngineError as error:
            return str(error)
        return None


async def _rollback(connection: AsyncConnection, adapter: Any) -> None:
    """Roll back. A connection on which BEGIN, COMMIT or this fails is discarded."""
    driver_transaction, adapter._transaction = adapter._transaction, None  # noqa: SLF001 - it is rolled back here
    if driver_transaction is None or adapter.driver_connection.is_closed():
        await discard(connection)
        return
    try:
        await driver_transaction.rollback()
    except BaseException as rollback_error:
        await discard(connection)
        if not isinstance(rollback_error, Exception):
            raise


def _create_pool(url: str, settings: Settings) -> AsyncEngine:
    return create_database_engine(
        url,
        pool_size=settings.database_pool_size,
        max_overflow=0,
        pool_timeout=settings.database_transaction_timeout,
        pool_use_lifo=True,
        hide_parameters=True,
        json_serializer=dumps,
        json_deserializer=orjson.loads,
        connect_args=session_arguments(settings),
    )
