"""
Which pooled connections may be used again, and how soon a stale one is found.

A stale connection is rarely alone: an unreachable server, or a primary that became a standby,
concerns the whole pool, and each user would wait for its own timeout. So after one stale connection
all connections that were opened before it are replaced at their next use. An idle connection is
checked with a query first, because a firewall drops idle connections silently. A transaction that
fails on a stale connection reports it here, too (`errors.is_stale_connection`). The one connection
of a command is checked in store/session.py, those to RabbitMQ in amqp/connection.py.
"""

import asyncio
import time
from contextlib import suppress
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from saga_engine.postgres import keepalive
from saga_engine.postgres.session_changes import SESSION_CHANGED_KEY
from saga_engine.settings import Settings

_OPENED_AT, _USED_AT = "saga_engine_opened_at", "saga_engine_used_at"
_PING = text("SELECT 1")


class ConnectionPool:
    """
    The connections of one engine, all valid until one of them is found stale.

    An idle connection must answer within `database_connect_timeout` seconds. `opened_count` is how
    many connections were opened: while it is the same, they lead to the same server.
    """

    def __init__(self, engine: AsyncEngine, settings: Settings) -> None:
        self._engine = engine
        self._ping_timeout = settings.database_connect_timeout
        self._valid_since = 0.0
        self.opened_count = 0
        event.listen(engine.sync_engine, "connect", _on_connect)
        event.listen(engine.sync_engine, "connect", self._count_opened)
        event.listen(engine.sync_engine, "checkin", _on_return)  # codespell:ignore checkin
        event.listen(engine.sync_engine, "checkout", self._on_checkout)

    def invalidate_before(self, moment: float) -> None:
        """Replace connections that were opened before a time of the monotonic clock."""
        self._valid_since = max(self._valid_since, moment)

    def is_valid(self, proxied: PoolProxiedConnection) -> bool:
        """Whether a connection that is checked out was opened after the last stale one."""
        return bool(proxied.info[_OPENED_AT] >= self._valid_since)

    async def connect(self) -> AsyncConnection:
        """Check out a connection that reaches the server: a pooled one, or a new one."""
        while True:
            connection = await self._engine.connect()
            info = (await connection.get_raw_connection()).info
            now = time.monotonic()
            if now - info[_USED_AT] < keepalive.IDLE_PING_AFTER or await self._ping(connection):
                return connection
            self.invalidate_before(now)

    async def _ping(self, connection: AsyncConnection) -> bool:
        adapter: Any = (await connection.get_raw_connection()).dbapi_connection
        # Terminated, not cancelled: then SQLAlchemy would wait two more seconds for a clean close.
        timeout_handle = asyncio.get_running_loop().call_later(
            self._ping_timeout, _terminate, adapter
        )
        answered = False
        try:
            with suppress(Exception):  # a new connection raises the same error again
                await connection.execute(_PING)
                await connection.rollback()
                # terminated just as it answered
                answered = not adapter.driver_connection.is_closed()
        finally:
            timeout_handle.cancel()
            if not answered:
                await discard(connection)
                await connection.close()
        return answered

    def _count_opened(self, _connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        self.opened_count += 1

    def _on_checkout(
        self, connection: DBAPIConnection, entry: ConnectionPoolEntry, _: PoolProxiedConnection
    ) -> None:
        if entry.info[_OPENED_AT] < self._valid_since:
            _terminate(connection)
            raise DisconnectionError  # SQLAlchemy opens another one


async def discard(connection: AsyncConnection) -> None:
    """Close a connection that may be stale or in the middle of an answer, without waiting."""
    if not connection.invalidated:
        _terminate((await connection.get_raw_connection()).dbapi_connection)
        await connection.invalidate()


async def release(connection: AsyncConnection) -> None:
    """Return a connection to its pool, or close it if a statement may have changed its session."""
    is_usable = not connection.closed and not connection.invalidated
    if is_usable and connection.info.pop(SESSION_CHANGED_KEY, False):
        await discard(connection)
    await connection.close()


def _terminate(connection: DBAPIConnection | None) -> None:
    """Close without a clean shutdown, which SQLAlchemy would wait for; other drivers need it."""
    driver: Any = connection and connection.driver_connection
    if hasattr(driver, "terminate"):
        driver.terminate()


def _on_connect(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
    entry.info[_OPENED_AT] = entry.info[_USED_AT] = time.monotonic()
    keepalive.enable_keepalive_on_driver(connection.driver_connection)


def _on_return(_: object, entry: ConnectionPoolEntry) -> None:
    entry.info[_USED_AT] = time.monotonic()
