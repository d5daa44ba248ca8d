"""
The development broker as its users see it: start, url, faults, stop.

It lives on the event loop it is entered on and listens on this machine only. Memory is bounded:
when what is queued reaches `memory_limit`, publishers wait (connection.blocked), as with RabbitMQ.
"""

import asyncio
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Self
from urllib.parse import quote

from saga_engine.embedded.broker.connection import ClientConnection
from saga_engine.embedded.broker.interceptor import PublishInterceptor, deliver
from saga_engine.embedded.broker.virtual_host import VirtualHost

_HOST: Final = "127.0.0.1"
_DEFAULT_USERS: Final = MappingProxyType({"guest": "guest"})
_DEFAULT_MEMORY_LIMIT: Final = (
    268_435_456  # Bytes queued; a laptop does not notice a quarter of a GiB.
)


class OpenConnections:
    """The clients that are connected, and what can happen to all of them at once."""

    def __init__(self) -> None:
        self._open: set[ClientConnection] = set()
        self._alarms: dict[str, str] = {}
        self._all_closed = asyncio.Event()
        self._all_closed.set()

    def add(self, connection: ClientConnection) -> None:
        """A client has come."""
        self._open.add(connection)
        self._all_closed.clear()
        connection.set_alarm(self._alarm_reason)

    def discard(self, connection: ClientConnection) -> None:
        """A client has left."""
        self._open.discard(connection)
        if not self._open:
            self._all_closed.set()

    def abort_all(self) -> int:
        """End them all without a word; return how many there were."""
        for connection in list(self._open):
            connection.abort()
        return len(self._open)

    def block_publishers(self, reason: str) -> None:
        """Make publishers wait, by order of a test."""
        self._set_alarms({**self._alarms, "requested": reason})

    def unblock_publishers(self) -> None:
        """End that order."""
        self._set_alarms({name: text for name, text in self._alarms.items() if name != "requested"})

    def set_memory_alarm(self, active: bool) -> None:  # noqa: FBT001 - the answer to a question
        """Make publishers wait while memory is short."""
        others = {name: text for name, text in self._alarms.items() if name != "memory"}
        self._set_alarms({**others, "memory": "low on memory"} if active else others)

    async def close_all(self) -> None:
        """Say goodbye to all and see them off."""
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


class DevelopmentBroker:
    """An AMQP 0-9-1 broker in memory for the time of an `async with`; `port` 0 takes a free one."""

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

    async def __aenter__(self) -> Self:
        """Listen; OSError when the port is taken."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._new_connection, _HOST, self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every connection (320) and forget everything."""
        assert self._server, "entered before it is left"
        self._server.close()
        await self.connections.close_all()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """Where to connect, with the first user's password."""
        user, password = next(iter(self._users.items()))
        return f"amqp://{quote(user, safe='')}:{quote(password, safe='')}@{_HOST}:{self._port}/"

    @property
    def startup_notice(self) -> str:
        """One line for people: what this is and what it is not for."""
        return (
            f"Development broker on {_HOST}:{self._port}, in memory: it forgets everything when it"
            " stops. Not for production; set SAGA_ENGINE_BROKER_URL to use RabbitMQ."
        )

    def _new_connection(self) -> ClientConnection:
        on_connected, on_disconnected = self.connections.add, self.connections.discard
        return ClientConnection(
            self._virtual_host, self._interceptor, self._users, on_connected, on_disconnected
        )
