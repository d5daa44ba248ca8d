"""
The AsyncConnection that a handler gets, on a connection that outlives its command.

Each command gets an object of its own, so that options which one handler sets do not reach the
next. It is closed after the command: a task that the handler has left behind cannot execute
statements in the transaction of another command.
"""

from typing import Any

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import PoolProxiedConnection


class _KeptConnection:
    """A connection of the pool that stays checked out when SQLAlchemy closes it."""

    def __init__(self, proxied: PoolProxiedConnection) -> None:
        self._proxied = proxied

    def __getattr__(self, name: str) -> Any:
        return getattr(self._proxied, name)

    def close(self) -> None:
        """Keep it: its owner returns it."""

    def _close_special(self, **_: object) -> None:
        """Keep it; SQLAlchemy calls this after it has ended the transaction."""


def open_connection(
    engine: AsyncEngine, proxied: PoolProxiedConnection, transaction: Any
) -> AsyncConnection:
    """
    Make the connection of one handler, in a transaction.

    Args:
        engine: of the pool.
        proxied: a connection that is checked out of the pool.
        transaction: the transaction of asyncpg that was started on it.
    """
    kept: Any = _KeptConnection(proxied)
    sync_connection = Connection(engine.sync_engine, kept, _allow_revalidate=False)
    _set_transaction(proxied, transaction)
    sync_connection.begin()  # without I/O: SQLAlchemy knows that the driver has started it
    return AsyncConnection(engine, sync_connection)


def close_connection(connection: AsyncConnection, proxied: PoolProxiedConnection) -> None:
    """Close the connection of one handler, whose transaction the driver has ended."""
    if proxied.dbapi_connection is not None:
        _set_transaction(proxied, None)
    assert connection.sync_connection is not None, "it was made here"
    connection.sync_connection.close()


def _set_transaction(proxied: PoolProxiedConnection, transaction: Any) -> None:
    adapter: Any = proxied.dbapi_connection
    adapter._transaction = transaction  # noqa: SLF001 - it has no public name
