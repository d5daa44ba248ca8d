"""
The way to PostgreSQL: a pool, and one transaction for one unit of work.

A transaction is short and bounded on both sides: here by a timeout, there by limits of the session.
What goes wrong leaves as one of our errors; see `sqlstate`. Nothing is retried here: whether a cut
COMMIT happened is not known, so the caller looks again by key.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self, TypeAlias

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from saga_engine.errors import ConfigurationError, SchemaMismatch
from saga_engine.settings import Settings
from saga_engine.store import encoding, schema
from saga_engine.store.document import dumps
from saga_engine.store.engine import engine_for
from saga_engine.store.pool import Pool, discard
from saga_engine.store.sqlstate import address, leads_astray, translated

Transaction: TypeAlias = AsyncConnection
"""A connection inside a transaction; every function of this package takes one."""


class Database:
    """
    A pool of connections to one database; `async with` owns it.

    Entering checks that it can be used, see `check`.
    """

    def __init__(self, url: str, settings: Settings) -> None:
        self._where = address(url)
        self._timeout = settings.database_timeout
        self._engine = _engine(url, settings)
        self._pool = Pool(self._engine, settings)

    async def __aenter__(self) -> Self:
        try:
            await self.check()
        except BaseException:
            await self._engine.dispose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._engine.dispose()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """
        Open one transaction: committed when the block ends, undone when it raises.

        Raises:
            StoreUnavailable: try again later; whether it was committed is unknown.
            StoreRefused: it can never be committed with this data.
            SchemaMismatch: the tables are not those of this version.
        """
        begun = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout), self._begun() as connection:
                yield connection
        except Exception as error:
            if leads_astray(error):
                self._pool.distrust(begun)
            ours = translated(error, self._where)
            if ours is None:
                raise
            raise ours from None

    @asynccontextmanager
    async def _begun(self) -> AsyncIterator[Transaction]:
        connection = await self._pool.connect()
        try:
            unit = await connection.begin()
            yield connection
            await unit.commit()
        except asyncio.CancelledError:
            # A cancelled statement may leave the socket dead or in the middle of an answer, and a
            # rollback would wait for it. The server undoes what a closed connection leaves.
            await discard(connection)
            raise
        finally:
            await connection.close()

    async def check(self) -> None:
        """
        Make sure that the database answers, keeps what it has confirmed, and has our tables.

        Raises:
            StoreUnavailable: it does not answer.
            SchemaMismatch: it has not been migrated to this version, or so far that this version
                cannot work with it any more.
            ConfigurationError: synchronous_commit is off, so confirmed commits could be lost; or
                its encoding is not UTF8, so it cannot hold every text.
        """
        async with self.transaction() as tx:
            row = (await tx.execute(_CHECK)).one()
            if row.synchronous_commit == "off":
                raise ConfigurationError(
                    f"synchronous_commit is off for {self._where}: a crash would lose commits that"
                    " were confirmed. Set it to on for this role or database."
                )
            encoding.refuse(row.server_encoding, self._where)
            if not row.migrated:
                raise SchemaMismatch(
                    f"The database {self._where} has no saga-engine schema."
                    " Run `saga-engine migrate`."
                )
            problem = await tx.run_sync(schema.problem)
        if problem:
            raise SchemaMismatch(f"The database {self._where} {problem}")


_CHECK = text(
    """
    SELECT current_setting('synchronous_commit') AS synchronous_commit,
        current_setting('server_encoding') AS server_encoding,
        to_regclass('saga_engine.alembic_version') IS NOT NULL AS migrated"""
)


def _engine(url: str, settings: Settings) -> AsyncEngine:
    timeout = f"{settings.database_timeout * 1000:.0f}"
    return engine_for(
        url,
        pool_size=settings.database_pool,
        max_overflow=0,
        pool_timeout=settings.database_timeout,
        pool_use_lifo=True,
        hide_parameters=True,
        json_serializer=dumps,
        json_deserializer=orjson.loads,
        connect_args={
            "timeout": settings.database_connect_timeout,
            "command_timeout": settings.database_timeout,
            "server_settings": {
                "application_name": "saga-engine",
                "timezone": "UTC",
                "default_transaction_isolation": "read committed",
                "statement_timeout": timeout,
                "idle_in_transaction_session_timeout": timeout,
                "lock_timeout": f"{settings.database_lock_timeout * 1000:.0f}",
                # Every hot statement finds its rows by key, whatever the planner believes: a plan
                # made while the tables were empty must not read all of them when they are full.
                "plan_cache_mode": "force_generic_plan",
                "enable_seqscan": "off",
                "jit": "off",
            },
        },
    )
