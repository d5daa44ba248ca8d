"""
The participant's own database: one transaction for one command.

An engine that is given stays the user's; one made here from a URL has a connection for each
handler that may run at once. Either way transactions are READ COMMITTED, which the barrier needs.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress

from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncTransaction

from saga_engine.errors import ConfigurationError
from saga_engine.participant import barrier
from saga_engine.participant.watchdog import APPLICATION, Watchdog
from saga_engine.settings import Settings
from saga_engine.store.engine import engine_for
from saga_engine.store.pool import COUNT, IDLE, INTERVAL, SILENCE_MS, Pool, discard
from saga_engine.store.sqlstate import leads_astray, translated
from saga_engine.telemetry.facts import Observer


class Database:
    """One participant's database."""

    def __init__(self, database: AsyncEngine | str, settings: Settings) -> None:
        self._owned = isinstance(database, str)
        engine = _engine(database, settings) if isinstance(database, str) else database
        if engine.dialect.name != "postgresql":
            raise ConfigurationError(
                f"The barrier works on PostgreSQL, not on {engine.dialect.name}. Leave database out"
                " and pass the idempotency key on instead."
            )
        self.where = _where(engine.url)
        self._engine = engine
        self._pool = Pool(engine, settings) if self._owned else None
        self._watchdog = Watchdog(engine, database, settings) if isinstance(database, str) else None
        self._timeout = settings.database_timeout
        # Nobody else's engine says for how long a session that is cut off keeps what it has locked.
        milliseconds = int(settings.participant_timeout * 1000)
        self._let_go = text(f"SET LOCAL idle_in_transaction_session_timeout = {milliseconds}")

    async def prepare(self, *, create_barrier: bool) -> None:
        """
        Make sure that it can be used.

        Raises:
            StoreError, ConfigurationError: it cannot; the text says why.
        """
        try:
            async with asyncio.timeout(self._timeout):
                if create_barrier:
                    await barrier.create(self._engine)
                async with self._engine.connect() as connection:
                    found = await connection.scalar(_EXISTS)
        except Exception as error:
            ours = translated(error, self.where)
            if ours is None:
                raise
            raise ours from None
        if not found:
            raise ConfigurationError(
                f"The database {self.where} has no table saga_barrier. Add `barrier.table` to your"
                " migrations, or let it be created with create_barrier=True."
            )

    async def problem(self) -> str | None:
        """What is wrong with it now, in a sentence; None: nothing."""
        try:
            async with asyncio.timeout(self._timeout), self._engine.connect() as connection:
                await connection.execute(_ALIVE)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what is asked for
            return str(translated(error, self.where) or type(error).__name__)
        return None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Open one transaction: committed when the block ends, rolled back when it raises."""
        begun = time.monotonic()
        connection = await (self._pool or self._engine).connect()
        try:
            if not self._owned:
                connection = await connection.execution_options(isolation_level="READ COMMITTED")
            transaction = await connection.begin()
            if not self._owned:
                await connection.execute(self._let_go)
            try:
                yield connection
            except Exception:
                await self._undo(connection, transaction)
                raise
            with self._watching(connection):
                await transaction.commit()
        except asyncio.CancelledError:
            # A cancelled statement may leave the socket in the middle of an answer, and a rollback
            # would wait for it. The server undoes what a closed connection leaves.
            await discard(connection)
            raise
        except Exception as error:
            # A handler that waited in vain for somebody else says nothing of this database.
            if self._pool and leads_astray(error) and not isinstance(error, TimeoutError):
                self._pool.distrust(begun)
            raise
        finally:
            if self._watchdog:
                self._watchdog.forget(connection)
            await connection.close()

    async def _undo(self, connection: AsyncConnection, transaction: AsyncTransaction) -> None:
        """Roll back while it is watched, which closing the connection is not."""
        try:
            with self._watching(connection):
                await transaction.rollback()
        except Exception:  # noqa: BLE001 - the server undoes what a closed connection leaves
            with suppress(Exception):  # what the handler raised is the answer, whatever this does
                await discard(connection)

    def _watching(self, connection: AsyncConnection) -> AbstractContextManager[None]:
        return self._watchdog.watching(connection) if self._watchdog else nullcontext()

    async def watch(self, tell: Observer) -> None:
        """End what is lost on the way, until cancelled; an engine that is given is its user's."""
        if self._watchdog:
            await self._watchdog.run(tell)

    async def close(self) -> None:
        """Close what was opened here."""
        if self._watchdog:
            await self._watchdog.close()
            await self._engine.dispose()


_EXISTS = text("SELECT to_regclass('saga_barrier') IS NOT NULL")
_ALIVE = text("SELECT 1")


def _where(url: URL) -> str:
    """Give what may be shown of a URL: its query can hold a password as well."""
    hosts = url.query.get("host", "localhost")
    host = url.host or (hosts if isinstance(hosts, str) else ",".join(hosts))
    port = f":{url.port}" if url.port else ""
    return f"{url.username or ''}@{host}{port}/{url.database or ''}"


def _engine(url: str, settings: Settings) -> AsyncEngine:
    timeout = f"{settings.participant_timeout * 1000:.0f}"
    return engine_for(
        url,
        pool_size=settings.participant_concurrency,
        max_overflow=0,
        pool_timeout=settings.participant_timeout,
        pool_use_lifo=True,
        hide_parameters=True,
        connect_args={
            "timeout": settings.database_connect_timeout,
            "command_timeout": settings.participant_timeout,
            "server_settings": {
                "application_name": APPLICATION,
                "default_transaction_isolation": "read committed",
                # Who is cut off in the middle of a command has it in hand, and all further attempts
                # wait for that: until then at most, or until the server finds its host gone.
                "statement_timeout": timeout,
                "idle_in_transaction_session_timeout": timeout,
                "tcp_keepalives_idle": f"{IDLE}",
                "tcp_keepalives_interval": f"{INTERVAL}",
                "tcp_keepalives_count": f"{COUNT}",
                "tcp_user_timeout": f"{SILENCE_MS}",
            },
        },
    )
