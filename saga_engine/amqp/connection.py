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
from random import random, randrange
from types import TracebackType
from typing import Self, TypeVar

from aiormq.abc import AbstractConnection
from aiormq.channel import Channel

from saga_engine.amqp import driver, tolerant_decoding
from saga_engine.amqp.declare import declare_topology
from saga_engine.amqp.driver import AmqpConnection
from saga_engine.amqp.handshake import open_connection
from saga_engine.amqp.url import split_hosts, username_of, with_heartbeat
from saga_engine.backoff import Backoff
from saga_engine.errors import BrokerError, BrokerUnavailable, ConfigurationError
from saga_engine.protocol.topology import Topology
from saga_engine.settings import Settings
from saga_engine.vocabulary import ConnectionState

CLOSE_TIMEOUT = 2.0
"""Seconds to say goodbye; the broker notices the closed socket just as well."""

RPC_TIMEOUT = 3.0
"""
Seconds a broker may take to open or close a channel; a broker that takes longer is taken for gone.
A declaration on an open connection has the same time; after it a channel is opened as a test.
"""

C = TypeVar("C", bound=Channel)


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """
    What an observer is told, at each change and at each failed attempt.

    `epoch` counts the connections of this link from 1; it is 0 before the first. `problem` says in
    a sentence what keeps the link from working, without secrets; it is empty when it works.
    """

    name: str
    state: ConnectionState
    generation: int
    problem: str = ""


StatusObserver = Callable[[ConnectionStatus], None]


def ignore_status(_: ConnectionStatus) -> None:
    """Observe nothing."""


class SupervisedConnection:
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
        on_status: StatusObserver = ignore_status,
        wait_for_broker: bool = False,
    ) -> None:
        self.name = name
        self.settings = settings
        self.topology = topology or Topology()
        self.status = ConnectionStatus(name, ConnectionState.CONNECTING, 0)
        url = url.strip()  # as in the settings: a line end of a file is not part of it
        self.username = username_of(url)
        self._host_urls = deque(
            with_heartbeat(host_url, settings.broker_heartbeat) for host_url in split_hosts(url)
        )
        self._host_urls.rotate(randrange(len(self._host_urls)))  # noqa: S311 - no secret depends on it
        self._backoff = Backoff(
            settings.broker_reconnect_backoff, settings.broker_reconnect_backoff_max, jitter=0.5
        )
        self._on_status = on_status
        self._wait_for_broker = wait_for_broker
        self._connection: AmqpConnection | None = None
        self._connected = asyncio.Event()
        self._disconnected = asyncio.Event()
        self._publishable = asyncio.Event()
        self._closing = False
        self._tasks = asyncio.TaskGroup()
        self._probe_task: asyncio.Task[None] | None = None
        self._supervisor_task: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        tolerant_decoding.install_decoders()
        driver.check_aiormq_hooks()
        await self._connect(initial=True)
        await self._tasks.__aenter__()
        self._supervisor_task = self._tasks.create_task(self._supervise())
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._closing = True
        self._supervisor_task.cancel()
        self._connected.clear()
        self._publishable.clear()
        if self._connection:
            await driver.close(self._connection, CLOSE_TIMEOUT)
        # The task group is not told of the error: it would leave wrapped in an exception group.
        await self._tasks.__aexit__(None, None, None)
        self._set_status(ConnectionState.CLOSED)

    async def wait_connected(self) -> AmqpConnection:
        """Wait until the link is up and return its connection."""
        while not (self._connection and self._connected.is_set()):
            await self._connected.wait()
        return self._connection

    async def wait_publishable(self) -> None:
        """Wait until the link is up and the broker takes publishes."""
        await self._publishable.wait()

    def report_problem(self, problem: str) -> None:
        """Tell the observer of a problem that is a channel's; an empty one says that it is over."""
        if not self._closing:
            self._set_status(self.status.state, problem)

    def drop_connection(self, connection: AbstractConnection, problem: str) -> None:
        """
        Give a connection up, because it does not answer; the link opens another one.

        Whoever waited for one that has been replaced since says nothing of the new one.
        """
        if connection is self._connection:
            driver.skip_close_handshake(connection)
            self.close_in_background(connection)
            self._connection_lost(connection, problem)

    def probe(self, connection: AbstractConnection) -> None:
        """
        Find out whether a connection on which nothing is heard leads anywhere; else drop it.

        A broker that blocks publishers does not read the question either.
        """
        current = self._connection
        if current is None or current is not connection or self._probe_task:
            return
        if self.status.state is ConnectionState.CONNECTED and not self._closing:
            self._probe_task = self._tasks.create_task(self._probe(current))

    async def open_channel(
        self, connection: AmqpConnection, channel_class: type[C], *, confirm_mode: bool = False
    ) -> C:
        """
        Open a channel; a connection on which none can be opened is dropped.

        Raises:
            BrokerUnavailable: it was not opened.
        """
        try:
            return await driver.open_channel(
                connection, channel_class, RPC_TIMEOUT, confirm_mode=confirm_mode
            )
        except BrokerError as error:
            # What closed it says better why it is gone.
            if self.status.state is ConnectionState.CONNECTED and not connection.is_closed:
                self.drop_connection(connection, str(error))
            raise

    async def redeclare_topology(self, connection: AmqpConnection) -> None:
        """
        Declare the topology again. If RabbitMQ does not answer, test the connection with `ask`.

        The connection is dropped only if that fails too: a cluster with one node that hangs may
        answer no declaration for a minute, and still deliver and confirm messages.

        Raises:
            TopologyMismatch, BrokerUnavailable: as `declare`.
        """
        try:
            await declare_topology(connection, self.topology, RPC_TIMEOUT)
        except (driver.BrokerTimeout, asyncio.CancelledError):
            self.probe(connection)  # also when the caller gives up before ANSWERING is over
            raise

    def close_in_background(self, resource: AmqpConnection | Channel) -> None:
        """
        Close a channel or a connection that is given up, without waiting for it.

        A peer that does not even answer to a channel's close is gone: its connection is dropped.
        Heartbeats find that as well, but only after three of them.
        """
        if not self._closing:
            self._tasks.create_task(self._close(resource))

    async def _probe(self, connection: AmqpConnection) -> None:
        try:
            await self._close(await self.open_channel(connection, Channel))
        except BrokerError:
            pass  # it is dropped, or blocked, or was gone before
        finally:
            self._probe_task = None

    async def _close(self, resource: AmqpConnection | Channel) -> None:
        closed = await driver.close(resource, RPC_TIMEOUT)
        if not closed and isinstance(resource, Channel):
            self.drop_connection(resource.connection, "it does not answer")

    async def _supervise(self) -> None:
        while True:
            await self._disconnected.wait()
            await self._connect(initial=False)

    async def _connect(self, *, initial: bool) -> None:
        failures = 0
        while True:
            try:
                await self._open()
            except (BrokerError, ConfigurationError) as error:
                self._host_urls.rotate(-1)
                if initial and not self._may_retry_initial(error, failures):
                    raise
                self._set_status(ConnectionState.CONNECTING, str(error))
            else:
                return
            await asyncio.sleep(self.backoff_delay(failures))
            failures += 1

    def _may_retry_initial(self, error: Exception, failures: int) -> bool:
        """Whether the first connection is tried again after so many failures before this one."""
        has_untried_host = failures + 1 < len(self._host_urls)
        return isinstance(error, BrokerUnavailable) and (self._wait_for_broker or has_untried_host)

    def backoff_delay(self, failures: int) -> float:
        """Return the seconds before the next attempt; the jitter spreads many processes."""
        return self._backoff.delay(failures, random())  # noqa: S311 - no secret depends on it

    async def _open(self) -> None:
        connection = await open_connection(
            self._host_urls[0], self.name, self.settings.broker_connect_timeout
        )
        try:
            await declare_topology(connection, self.topology, self.settings.broker_connect_timeout)
        except BaseException:
            await driver.close(connection, CLOSE_TIMEOUT)
            raise
        connection.on_blocked = lambda reason: self._connection_blocked(connection, reason)
        connection.on_unblocked = lambda: self._connection_unblocked(connection)
        self._connection = connection
        self._disconnected.clear()
        self._connected.set()
        self._publishable.set()
        self._set_status(ConnectionState.CONNECTED, generation=self.status.generation + 1)
        driver.on_closed(connection, lambda reason: self._connection_lost(connection, reason))

    def _connection_lost(self, connection: AmqpConnection, reason: str) -> None:
        if connection is not self._connection or self._closing:
            return
        self._connection = None
        self._host_urls.rotate(-1)
        self._connected.clear()
        self._publishable.clear()
        self._disconnected.set()
        self._set_status(ConnectionState.CONNECTING, f"The connection was lost: {reason}.")

    def _connection_blocked(self, connection: AmqpConnection, reason: str) -> None:
        if connection is not self._connection:
            return  # one that was given up says so while it is being closed
        self._publishable.clear()
        self._set_status(ConnectionState.BLOCKED, f"The broker takes no publishes: {reason}.")

    def _connection_unblocked(self, connection: AmqpConnection) -> None:
        if connection is not self._connection:
            return
        self._publishable.set()
        self._set_status(ConnectionState.CONNECTED)

    def _set_status(
        self, state: ConnectionState, problem: str = "", *, generation: int | None = None
    ) -> None:
        self.status = ConnectionStatus(
            self.name, state, self.status.generation if generation is None else generation, problem
        )
        self._on_status(self.status)
