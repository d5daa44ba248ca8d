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

from saga_engine.embedded.broker.connection import Connection
from saga_engine.embedded.broker.faults import Faults
from saga_engine.embedded.broker.virtual_host import VirtualHost

_HOST: Final = "127.0.0.1"
_GUEST: Final = MappingProxyType({"guest": "guest"})
_MEMORY_LIMIT: Final = 268_435_456  # Bytes queued; a laptop does not notice a quarter of a GiB.


class OpenConnections:
    """The clients that are connected, and what can happen to all of them at once."""

    def __init__(self) -> None:
        self._open: set[Connection] = set()
        self._alarms: dict[str, str] = {}
        self._none = asyncio.Event()
        self._none.set()

    def add(self, connection: Connection) -> None:
        """A client has come."""
        self._open.add(connection)
        self._none.clear()
        connection.alarm(self._reason)

    def discard(self, connection: Connection) -> None:
        """A client has left."""
        self._open.discard(connection)
        if not self._open:
            self._none.set()

    def cut(self) -> int:
        """End them all without a word; return how many there were."""
        for connection in list(self._open):
            connection.cut()
        return len(self._open)

    def block(self, reason: str) -> None:
        """Make publishers wait, by order of a test."""
        self._change({**self._alarms, "order": reason})

    def unblock(self) -> None:
        """End that order."""
        self._change({name: text for name, text in self._alarms.items() if name != "order"})

    def crowd(self, crowded: bool) -> None:  # noqa: FBT001 - the answer to a question
        """Make publishers wait while memory is short."""
        others = {name: text for name, text in self._alarms.items() if name != "memory"}
        self._change({**others, "memory": "low on memory"} if crowded else others)

    async def shut_down(self) -> None:
        """Say goodbye to all and see them off."""
        for connection in list(self._open):
            connection.shut_down()
        await self._none.wait()

    @property
    def _reason(self) -> str | None:
        return next(iter(self._alarms.values()), None)

    def _change(self, alarms: dict[str, str]) -> None:
        before, self._alarms = self._reason, alarms
        if before != self._reason:
            for connection in list(self._open):
                connection.alarm(self._reason)


class DevelopmentBroker:
    """An AMQP 0-9-1 broker in memory for the time of an `async with`; `port` 0 takes a free one."""

    def __init__(
        self,
        port: int = 0,
        *,
        users: Mapping[str, str] = _GUEST,
        memory_limit: int = _MEMORY_LIMIT,
    ) -> None:
        self._port = port
        self._users = users
        self._connections = OpenConnections()
        self._host = VirtualHost(memory_limit, self._connections.crowd)
        self._server: asyncio.Server | None = None
        self.faults = Faults(self._connections)

    async def __aenter__(self) -> Self:
        """Listen; OSError when the port is taken."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connect, _HOST, self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every connection (320) and forget everything."""
        assert self._server, "entered before it is left"
        self._server.close()
        await self._connections.shut_down()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """Where to connect, with the first user's password."""
        user, password = next(iter(self._users.items()))
        return f"amqp://{quote(user, safe='')}:{quote(password, safe='')}@{_HOST}:{self._port}/"

    @property
    def announce(self) -> str:
        """One line for people: what this is and what it is not for."""
        return (
            f"Development broker on {_HOST}:{self._port}, in memory: it forgets everything when it"
            " stops. Not for production; set SAGA_ENGINE_BROKER_URL to use RabbitMQ."
        )

    def _connect(self) -> Connection:
        come, go = self._connections.add, self._connections.discard
        return Connection(self._host, self.faults, self._users, come, go)
