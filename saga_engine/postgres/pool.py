"""
Which pooled connections may be used again, and how soon a dead one is found.

A connection that leads astray is rarely alone: what makes the server silent, or turns a primary
into a standby, does it to the whole pool at once, and each would take its user as long to find out.
So after one, all that were opened before are replaced when they are next wanted. One that has
rested is asked first whether anybody is there: a firewall forgets it without telling us.
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
from saga_engine.settings import Settings

_OPENED_AT, _USED_AT = "saga_engine_opened_at", "saga_engine_used_at"
_PING = text("SELECT 1")


class ConnectionPool:
    """
    The connections of one engine, trusted until one of them leads astray.

    One that has rested must answer within `database_connect_timeout` seconds.
    """

    def __init__(self, engine: AsyncEngine, settings: Settings) -> None:
        self._engine = engine
        self._ping_timeout = settings.database_connect_timeout
        self._valid_since = 0.0
        event.listen(engine.sync_engine, "connect", _on_connect)
        event.listen(engine.sync_engine, "checkin", _on_return)  # codespell:ignore checkin
        event.listen(engine.sync_engine, "checkout", self._on_checkout)

    def invalidate_before(self, moment: float) -> None:
        """Use no connection again that was opened before a moment of the monotonic clock."""
        self._valid_since = max(self._valid_since, moment)

    async def connect(self) -> AsyncConnection:
        """Check a connection out, one that leads to the server; a new one when none does."""
        while True:
            connection = await self._engine.connect()
            info = (await connection.get_raw_connection()).info
            now = time.monotonic()
            if now - info[_USED_AT] < keepalive.IDLE_PING_AFTER or await self._ping(connection):
                return connection
            self.invalidate_before(now)

    async def _ping(self, connection: AsyncConnection) -> bool:
        adapter: Any = (await connection.get_raw_connection()).dbapi_connection
        # Cut, not cancelled: after that SQLAlchemy would wait for a goodbye, two seconds more.
        timeout_handle = asyncio.get_running_loop().call_later(
            self._ping_timeout, _terminate, adapter
        )
        answered = False
        try:
            with suppress(Exception):  # whatever it is, a new connection will say so again
                await connection.execute(_PING)
                await connection.rollback()
                answered = not adapter.driver_connection.is_closed()  # cut just as it answered
        finally:
            timeout_handle.cancel()
            if not answered:
                await discard(connection)
                await connection.close()
        return answered

    def _on_checkout(
        self, connection: DBAPIConnection, entry: ConnectionPoolEntry, _: PoolProxiedConnection
    ) -> None:
        if entry.info[_OPENED_AT] < self._valid_since:
            _terminate(connection)
            raise DisconnectionError  # SQLAlchemy forgets it and opens another


async def discard(connection: AsyncConnection) -> None:
    """Close a connection that may be silent, or in the middle of an answer, and wait for nobody."""
    if not connection.invalidated:
        _terminate((await connection.get_raw_connection()).dbapi_connection)
        await connection.invalidate()


def _terminate(connection: DBAPIConnection | None) -> None:
    """SQLAlchemy would say goodbye first, and wait for that; other drivers than ours have to."""
    driver: Any = connection and connection.driver_connection
    if hasattr(driver, "terminate"):
        driver.terminate()


def _on_connect(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
    entry.info[_OPENED_AT] = entry.info[_USED_AT] = time.monotonic()
    keepalive.enable_keepalive_on_driver(connection.driver_connection)


def _on_return(_: object, entry: ConnectionPoolEntry) -> None:
    entry.info[_USED_AT] = time.monotonic()
