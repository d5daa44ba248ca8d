"""
One connection to RabbitMQ that is kept up: opened, watched, and opened again for ever.

A process has two links, one to publish and one to consume: when the broker runs out of memory or
disk it stops reading from connections that publish, and acknowledgements must still get through
(RabbitMQ guide "Alarms"). Each time a link comes up its topology is declared and checked.

The first connection may fail fast; after that nothing is raised: an observer is told.

A URL may name several hosts, the nodes of one cluster. Each link begins with one of them at random,
so that processes spread, and goes on to the next whenever one fails it.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from random import randrange, uniform
from types import TracebackType
from typing import Self, TypeVar

from aiormq.abc import AbstractConnection
from aiormq.channel import Channel

from saga_engine.amqp import driver, tolerant_decoding
from saga_engine.amqp.declare import declare
from saga_engine.amqp.driver import Connection
from saga_engine.amqp.handshake import connect
from saga_engine.amqp.url import each_host, user_of, with_heartbeat
from saga_engine.errors import BrokerError, BrokerUnavailable, ConfigurationError
from saga_engine.protocol.topology import Topology
from saga_engine.settings import Settings

CLOSING = 2.0
"""Seconds to say goodbye; the broker notices the closed socket just as well."""

ANSWERING = 3.0
"""
Seconds a broker may take to open or close a channel; a broker that takes longer is taken for gone.
A declaration on an open connection has the same time; after it a channel is opened as a test.
"""

C = TypeVar("C", bound=Channel)


class Phase(StrEnum):
    """Where a link stands."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    BLOCKED = "blocked"  # the broker takes no publishes for now
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class LinkState:
    """
    What an observer is told, at each change and at each failed attempt.

    `epoch` counts the connections of this link from 1; it is 0 before the first. `problem` says in
    a sentence what keeps the link from working, without secrets; it is empty when it works.
    """

    link: str
    phase: Phase
    epoch: int
    problem: str = ""


Observer = Callable[[LinkState], None]


def ignore(_: LinkState) -> None:
    """Observe nothing."""


class Link:
    """
    A supervised connection; `async with` owns it.

    Args:
        url: of one host, or of several: see `each_host`.
        name: `publish` or `consume`; shown in RabbitMQ's list of connections and to the observer.
        patient: whether entering waits for a broker that is out of reach; otherwise each host is
            tried once. A refused password or virtual host, and a topology that does not fit, are
            raised at once either way.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        settings: Settings,
        topology: Topology | None = None,
        on_state: Observer = ignore,
        patient: bool = False,
    ) -> None:
        self.name = name
        self.settings = settings
        self.topology = topology or Topology()
        self.state = LinkState(name, Phase.CONNECTING, 0)
        url = url.strip()  # as in the settings: a line end of a file is not part of it
        self.user = user_of(url)
        self._urls = deque(
            with_heartbeat(each, settings.broker_heartbeat) for each in each_host(url)
        )
        self._urls.rotate(randrange(len(self._urls)))  # noqa: S311 - no secret depends on it
        self._on_state = on_state
        self._patient = patient
        self._connection: Connection | None = None
        self._up = asyncio.Event()
        self._lost = asyncio.Event()
        self._flowing = asyncio.Event()
        self._leaving = False
        self._tasks = asyncio.TaskGroup()
        self._asking: asyncio.Task[None] | None = None
        self._supervisor: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        tolerant_decoding.install()
        driver.check()
        await self._connect(first=True)
        await self._tasks.__aenter__()
        self._supervisor = self._tasks.create_task(self._supervise())
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._leaving = True
        self._supervisor.cancel()
        self._up.clear()
        self._flowing.clear()
        if self._connection:
            await driver.close(self._connection, CLOSING)
        # The task group is not told of the error: it would leave wrapped in an exception group.
        await self._tasks.__aexit__(None, None, None)
        self._tell(Phase.CLOSED)

    async def connection(self) -> Connection:
        """Wait until the link is up and return its connection."""
        while not (self._connection and self._up.is_set()):
            await self._up.wait()
        return self._connection

    async def flowing(self) -> None:
        """Wait until the link is up and the broker takes publishes."""
        await self._flowing.wait()

    def report(self, problem: str) -> None:
        """Tell the observer of a problem that is a channel's; an empty one says that it is over."""
        if not self._leaving:
            self._tell(self.state.phase, problem)

    def drop(self, connection: AbstractConnection, problem: str) -> None:
        """
        Give a connection up, because it does not answer; the link opens another one.

        Whoever waited for one that has been replaced since says nothing of the new one.
        """
        if connection is self._connection:
            driver.expect_no_answer(connection)
            self.close_later(connection)
            self._down(connection, problem)

    def ask(self, connection: AbstractConnection) -> None:
        """
        Find out whether a connection on which nothing is heard leads anywhere; else drop it.

        A broker that blocks publishers does not read the question either.
        """
        ours = self._connection
        if ours is None or ours is not connection or self._asking:
            return
        if self.state.phase is Phase.CONNECTED and not self._leaving:
            self._asking = self._tasks.create_task(self._ask(ours))

    async def open_channel(
        self, connection: Connection, kind: type[C], *, confirms: bool = False
    ) -> C:
        """
        Open a channel; a connection on which none can be opened is dropped.

        Raises:
            BrokerUnavailable: it was not opened.
        """
        try:
            return await driver.open_channel(connection, kind, ANSWERING, confirms=confirms)
        except BrokerError as error:
            # What closed it says better why it is gone.
            if self.state.phase is Phase.CONNECTED and not connection.is_closed:
                self.drop(connection, str(error))
            raise

    async def restore(self, connection: Connection) -> None:
        """
        Declare the topology again. If RabbitMQ does not answer, test the connection with `ask`.

        The connection is dropped only if that fails too: a cluster with one node that hangs may
        answer no declaration for a minute, and still deliver and confirm messages.

        Raises:
            TopologyMismatch, BrokerUnavailable: as `declare`.
        """
        try:
            await declare(connection, self.topology, ANSWERING)
        except (driver.Silent, asyncio.CancelledError):
            self.ask(connection)  # also when the caller gives up before ANSWERING is over
            raise

    def close_later(self, resource: Connection | Channel) -> None:
        """
        Close a channel or a connection that is given up, without waiting for it.

        A peer that does not even answer to a channel's close is gone: its connection is dropped.
        Heartbeats find that as well, but only after three of them.
        """
        if not self._leaving:
            self._tasks.create_task(self._close(resource))

    async def _ask(self, connection: Connection) -> None:
        try:
            await self._close(await self.open_channel(connection, Channel))
        except BrokerError:
            pass  # it is dropped, or blocked, or was gone before
        finally:
            self._asking = None

    async def _close(self, resource: Connection | Channel) -> None:
        closed = await driver.close(resource, ANSWERING)
        if not closed and isinstance(resource, Channel):
            self.drop(resource.connection, "it does not answer")

    async def _supervise(self) -> None:
        while True:
            await self._lost.wait()
            await self._connect(first=False)

    async def _connect(self, *, first: bool) -> None:
        failures = 0
        while True:
            try:
                await self._open()
            except (BrokerError, ConfigurationError) as error:
                self._urls.rotate(-1)
                if first and not self._may_wait(error, failures):
                    raise
                self._tell(Phase.CONNECTING, str(error))
            else:
                return
            await asyncio.sleep(self.pause(failures))
            failures += 1

    def _may_wait(self, error: Exception, failures: int) -> bool:
        """Whether the first connection is tried again after so many failures before this one."""
        untried = failures + 1 < len(self._urls)
        return isinstance(error, BrokerUnavailable) and (self._patient or untried)

    def pause(self, failures: int) -> float:
        """Seconds before the next attempt: doubling, capped, and spread so that no herd forms."""
        longest = self.settings.broker_backoff_max
        delay = min(longest, self.settings.broker_backoff * 2.0 ** min(failures, 32))
        return delay * uniform(0.5, 1.0)  # noqa: S311 - no secret depends on it

    async def _open(self) -> None:
        connection = await connect(self._urls[0], self.name, self.settings.broker_connect_timeout)
        try:
            await declare(connection, self.topology, self.settings.broker_connect_timeout)
        except BaseException:
            await driver.close(connection, CLOSING)
            raise
        connection.on_blocked = lambda reason: self._blocked(connection, reason)
        connection.on_unblocked = lambda: self._unblocked(connection)
        self._connection = connection
        self._lost.clear()
        self._up.set()
        self._flowing.set()
        self._tell(Phase.CONNECTED, epoch=self.state.epoch + 1)
        driver.when_closed(connection, lambda reason: self._down(connection, reason))

    def _down(self, connection: Connection, reason: str) -> None:
        if connection is not self._connection or self._leaving:
            return
        self._connection = None
        self._urls.rotate(-1)
        self._up.clear()
        self._flowing.clear()
        self._lost.set()
        self._tell(Phase.CONNECTING, f"The connection was lost: {reason}.")

    def _blocked(self, connection: Connection, reason: str) -> None:
        if connection is not self._connection:
            return  # one that was given up says so while it is being closed
        self._flowing.clear()
        self._tell(Phase.BLOCKED, f"The broker takes no publishes: {reason}.")

    def _unblocked(self, connection: Connection) -> None:
        if connection is not self._connection:
            return
        self._flowing.set()
        self._tell(Phase.CONNECTED)

    def _tell(self, phase: Phase, problem: str = "", *, epoch: int | None = None) -> None:
        self.state = LinkState(
            self.name, phase, self.state.epoch if epoch is None else epoch, problem
        )
        self._on_state(self.state)
