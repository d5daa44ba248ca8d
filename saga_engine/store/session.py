"""
One connection to PostgreSQL, for a process that executes a few statements and ends.

It has the interface of `database.Database`, refuses the same databases and raises the same errors,
but uses only the driver: importing SQLAlchemy takes longer than a command runs. There is one
transaction at a time. A connection that is lost between two transactions is replaced.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg

from saga_engine import tls
from saga_engine.lifecycle import AsyncResource
from saga_engine.postgres import keepalive, pgbouncer
from saga_engine.postgres.errors import is_stale_connection, translate_error
from saga_engine.postgres.rows import DriverRows
from saga_engine.postgres.session_limits import session_arguments
from saga_engine.postgres.statement import Statement
from saga_engine.postgres.url import parse_database_url
from saga_engine.settings import Settings
from saga_engine.store import database_check

_SQLALCHEMY_ONLY = "prepared_statement_cache_size"
"""A parameter of the URL that only SQLAlchemy knows."""


class DriverTransaction:
    """A transaction on a connection of the driver, for the functions of this package."""

    def __init__(self, driver: pgbouncer.PoolerAwareConnection) -> None:
        self._driver = driver

    async def execute(
        self, statement: Statement, parameters: Mapping[str, Any] | None = None
    ) -> DriverRows:
        """Execute one statement."""
        return await self._driver.execute_statement(statement, parameters)


class Session(AsyncResource):
    """
    A connection to the engine's database; `async with` opens and closes it.

    Entering it checks that the database is usable, see `database_check`.

    Raises:
        ConfigurationError: the URL is invalid, or a certificate file cannot be read.
    """

    def __init__(self, url: str, settings: Settings) -> None:
        parsed_url = parse_database_url(url)
        self._address = parsed_url.without_password
        self._tls_files = tls.database_tls_files(url)
        self._arguments = {**parsed_url.connect_arguments(), **session_arguments(settings)}
        self._arguments.pop(_SQLALCHEMY_ONLY, None)
        self._timeout = settings.database_transaction_timeout
        self._connect_timeout = settings.database_connect_timeout
        self._driver: pgbouncer.PoolerAwareConnection | None = None
        self._last_used_at = 0.0

    async def _open(self, resources: AsyncExitStack) -> None:
        resources.push_async_callback(self._close)
        async with self.transaction() as tx:
            await database_check.check_database(tx, self._address)

    async def _close(self) -> None:
        try:
            if self._driver is not None:
                await self._driver.close(timeout=self._connect_timeout)
        except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresError):
            self._terminate()  # nothing is lost: there is no open transaction

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[DriverTransaction]:
        """
        Open one transaction: committed when the block ends, rolled back when it raises.

        Raises:
            StoreUnavailable: try again later; whether it was committed is unknown.
            StoreRefused: PostgreSQL refuses the data; a retry would fail too.
            SchemaMismatch: the tables are not those of this version.
        """
        try:
            async with asyncio.timeout(self._timeout), self._begin() as transaction:
                yield transaction
        except Exception as error:
            engine_error = translate_error(error, self._address)
            if engine_error is None:
                raise
            raise engine_error from None

    @asynccontextmanager
    async def _begin(self) -> AsyncIterator[DriverTransaction]:
        driver = await self._ensure_connected()
        assert not driver.is_in_transaction(), "a session has one transaction at a time"
        try:
            await driver.execute("BEGIN")
            yield DriverTransaction(driver)
            await driver.execute("COMMIT")
        except BaseException as error:
            # After a cancelled or unanswered statement a rollback would wait for its answer. The
            # server rolls back when the connection is closed.
            if not isinstance(error, Exception) or is_stale_connection(error):
                driver.terminate()
            else:
                await self._rollback(driver)
            raise
        finally:
            self._last_used_at = asyncio.get_running_loop().time()

    async def _rollback(self, driver: pgbouncer.PoolerAwareConnection) -> None:
        """Roll back; close a connection on which that fails."""
        try:
            if not driver.is_closed() and driver.is_in_transaction():
                await driver.execute("ROLLBACK")
        except BaseException:
            driver.terminate()
            raise

    async def _ensure_connected(self) -> pgbouncer.PoolerAwareConnection:
        if self._driver is None or not await self._is_alive(self._driver):
            context = self._tls_files is not None and tls.create_ssl_context(self._tls_files)
            self._driver = await pgbouncer.connect(ssl=context, **self._arguments)
            keepalive.enable_keepalive_on_driver(self._driver)
        return self._driver

    async def _is_alive(self, driver: pgbouncer.PoolerAwareConnection) -> bool:
        """Whether a connection is open; an idle one has to answer a query."""
        if driver.is_closed():
            return False
        if asyncio.get_running_loop().time() - self._last_used_at < keepalive.IDLE_PING_AFTER:
            return True
        try:
            await driver.execute("SELECT 1", timeout=self._connect_timeout)
        except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresError):
            driver.terminate()
        return not driver.is_closed()

    def _terminate(self) -> None:
        if self._driver is not None:
            self._driver.terminate()
