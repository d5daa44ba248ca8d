"""
One connection to PostgreSQL, for a process that executes a few statements and ends.

It is used as `database.Database` is, refuses the same databases and raises the same errors, over
the driver alone: a command of the command line ends before SQLAlchemy would be imported. There is
one transaction at a time. A connection that is lost between two transactions is replaced.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import asyncpg

from saga_engine import tls
from saga_engine.postgres import keepalive, pgbouncer
from saga_engine.postgres.errors import leads_astray, translated
from saga_engine.postgres.rows import Rows
from saga_engine.postgres.session_limits import connecting
from saga_engine.postgres.statement import Statement
from saga_engine.postgres.url import read
from saga_engine.settings import Settings
from saga_engine.store import database_check

_ADAPTER_ONLY = "prepared_statement_cache_size"
"""The parameter of a URL that is SQLAlchemy's and not the driver's."""


class Transaction:
    """The driver's connection inside a transaction, for the functions of this package."""

    def __init__(self, driver: pgbouncer.Connection) -> None:
        self._driver = driver

    async def execute(
        self, statement: Statement, parameters: Mapping[str, Any] | None = None
    ) -> Rows:
        """Execute one statement."""
        return await self._driver.run(statement, parameters)


class Session:
    """
    A connection to the engine's database; `async with` owns it.

    Entering checks that the database can be used, see `usable.check`.

    Raises:
        ConfigurationError: the URL cannot be read, or a certificate it names.
    """

    def __init__(self, url: str, settings: Settings) -> None:
        address = read(url)
        self._where = address.text
        self._files = tls.of_database(url)
        self._arguments = {**address.arguments(), **connecting(settings)}
        self._arguments.pop(_ADAPTER_ONLY, None)
        self._timeout = settings.database_timeout
        self._patience = settings.database_connect_timeout
        self._driver: pgbouncer.Connection | None = None
        self._used = 0.0

    async def __aenter__(self) -> Self:
        try:
            async with self.transaction() as tx:
                await database_check.check(tx, self._where)
        except BaseException:
            self._terminate()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._driver is not None:
                await self._driver.close(timeout=self._patience)
        except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresError):
            self._terminate()  # what was committed stays so

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """
        Open one transaction: committed when the block ends, undone when it raises.

        Raises:
            StoreUnavailable: try again later; whether it was committed is unknown.
            StoreRefused: it can never be committed with this data.
            SchemaMismatch: the tables are not those of this version.
        """
        try:
            async with asyncio.timeout(self._timeout), self._begun() as transaction:
                yield transaction
        except Exception as error:
            ours = translated(error, self._where)
            if ours is None:
                raise
            raise ours from None

    @asynccontextmanager
    async def _begun(self) -> AsyncIterator[Transaction]:
        driver = await self._connected()
        assert not driver.is_in_transaction(), "a session has one transaction at a time"
        try:
            await driver.execute("BEGIN")
            yield Transaction(driver)
            await driver.execute("COMMIT")
        except BaseException as error:
            # After a cancelled or unanswered statement a rollback would wait for its answer. The
            # server undoes what a closed connection leaves.
            if not isinstance(error, Exception) or leads_astray(error):
                driver.terminate()
            else:
                await self._undo(driver)
            raise
        finally:
            self._used = asyncio.get_running_loop().time()

    async def _undo(self, driver: pgbouncer.Connection) -> None:
        """Leave the transaction."""
        try:
            if not driver.is_closed() and driver.is_in_transaction():
                await driver.execute("ROLLBACK")
        except BaseException:
            driver.terminate()
            raise

    async def _connected(self) -> pgbouncer.Connection:
        if self._driver is None or not await self._answers(self._driver):
            context = self._files is not None and tls.context(self._files)
            self._driver = await pgbouncer.connect(ssl=context, **self._arguments)
            keepalive.watch_driver(self._driver)
        return self._driver

    async def _answers(self, driver: pgbouncer.Connection) -> bool:
        """Whether a connection is open; one that has rested is asked."""
        if driver.is_closed():
            return False
        if asyncio.get_running_loop().time() - self._used < keepalive.RESTED:
            return True
        try:
            await driver.execute("SELECT 1", timeout=self._patience)
        except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresError):
            driver.terminate()
        return not driver.is_closed()

    def _terminate(self) -> None:
        if self._driver is not None:
            self._driver.terminate()
