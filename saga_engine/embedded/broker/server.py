"""
The development broker: starts, listens, accepts connections, stops.

It runs on the event loop that enters it and listens on 127.0.0.1. Memory is bounded: when queued
messages reach `memory_limit`, publishers are blocked (connection.blocked), as with RabbitMQ.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import MappingProxyType
from typing import Final
from urllib.parse import quote

from saga_engine.embedded.broker.connection import ClientConnection
from saga_engine.embedded.broker.interceptor import PublishInterceptor, deliver
from saga_engine.embedded.broker.virtual_host import VirtualHost
from saga_engine.lifecycle import AsyncResource

_HOST: Final = "127.0.0.1"
_DEFAULT_USERS: Final = MappingProxyType({"guest": "guest"})
_DEFAULT_MEMORY_LIMIT: Final = 268_435_456  # Bytes of queued messages.


class OpenConnections:
    """The open connections, and operations on all of them."""

    def __init__(self) -> None:
        self._open: set[ClientConnection] = set()
        self._alarms: dict[str, str] = {}
        self._all_closed = asyncio.Event()
        self._all_closed.set()

    def add(self, connection: ClientConnection) -> None:
        """Add a connection."""
        self._open.add(connection)
        self._all_closed.clear()
        connection.set_alarm(self._alarm_reason)

    def discard(self, connection: ClientConnection) -> None:
        """Remove a connection."""
        self._open.discard(connection)
        if not self._open:
            self._all_closed.set()

    def abort_all(self) -> int:
        """Close all sockets without a close handshake; return their number."""
        for connection in list(self._open):
            connection.abort()
        return len(self._open)

    def block_publishers(self, reason: str) -> None:
        """Raise an alarm: the broker stops reading from publishers and notifies them."""
        self._set_alarms({**self._alarms, "requested": reason})

    def unblock_publishers(self) -> None:
        """Clear that alarm."""
        self._set_alarms({name: text for name, text in self._alarms.items() if name != "requested"})

    def set_memory_alarm(self, active: bool) -> None:  # noqa: FBT001 - a callback for a state
        """Raise or clear the memory alarm."""
        others = {name: text for name, text in self._alarms.items() if name != "memory"}
        self._set_alarms({**others, "memory": "low on memory"} if active else others)

    async def close_all(self) -> None:
        """Close all connections and wait until they are closed."""
        for connection in list(self._open):
            connection.close_for_shutdown()
        await self._all_closed.wait()

    @property
    def _alarm_reason(self) -> str | None:
        return next(iter(self._alarms.values()), None)

    def _set_alarms(self, alarms: dict[str, str]) -> None:
        previous_reason, self._alarms = self._alarm_reason, alarms
        if previous_reason != self._alarm_reason:
            for connection in list(self._open):
                connection.set_alarm(self._alarm_reason)


class DevelopmentBroker(AsyncResource):
    """
    An AMQP 0-9-1 broker in memory for the duration of an `async with`.

    Args:
        port: 0 selects a free port.
        users: passwords by user name.
        memory_limit: bytes of queued messages at which publishers are blocked.
        interceptor: decides what happens to each published message.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        users: Mapping[str, str] = _DEFAULT_USERS,
        memory_limit: int = _DEFAULT_MEMORY_LIMIT,
        interceptor: PublishInterceptor = deliver,
    ) -> None:
        self._port = port
        self._users = users
        self.connections = OpenConnections()
        self._virtual_host = VirtualHost(memory_limit, self.connections.set_memory_alarm)
        self._server: asyncio.Server | None = None
        self._interceptor: PublishInterceptor = interceptor

    async def _open(self, resources: AsyncExitStack) -> None:
        """Listen; raises OSError if the port is in use."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._new_connection, _HOST, self._port)
        resources.push_async_callback(self._close)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        """Close every connection (320) and drop all messages."""
        assert self._server, "the broker was entered"
        self._server.close()
        await self.connections.close_all()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """The URL to connect to, with the password of the first user."""
        user, password = next(iter(self._users.items()))
        return f"amqp://{quote(user, safe='')}:{quote(password, safe='')}@{_HOST}:{self._port}/"

    @property
    def startup_notice(self) -> str:
        """One line for people: what this is, and that it is not for production."""
        return (
            f"Development broker on {_HOST}:{self._port}, in memory: it loses all messages"
            " when it stops. Not for production; set SAGA_ENGINE_BROKER_URL to use RabbitMQ."
        )

    def _new_connection(self) -> ClientConnection:
        on_connected, on_disconnected = self.connections.add, self.connections.discard
        return ClientConnection(
            self._virtual_host, self._interceptor, self._users, on_connected, on_disconnected
        )
