"""
A supervised connection to RabbitMQ: opened, watched, and reopened whenever it is lost.

A process has two of them, one to publish and one to consume: a broker that runs out of memory or
disk stops reading from connections that publish, and acknowledgements must still reach it (RabbitMQ
guide "Alarms"). The topology is declared and checked each time the connection is opened.

Only opening the first connection raises an error; later problems go to an observer.

A URL may name several hosts, the nodes of one cluster. A connection starts with a random one, which
spreads the processes over the nodes, and uses the next one whenever a host fails.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from random import random, randrange
from typing import TypeVar

from aiormq.abc import AbstractConnection
from aiormq.channel import Channel

from saga_engine.amqp import driver, tolerant_decoding
from saga_engine.amqp.declare import declare_topology
from saga_engine.amqp.driver import AmqpConnection
from saga_engine.amqp.handshake import open_connection
from saga_engine.amqp.url import split_hosts, username_of, with_heartbeat
from saga_engine.backoff import Backoff
from saga_engine.errors import BrokerError, BrokerUnavailable, ConfigurationError
from saga_engine.lifecycle import AsyncResource
from saga_engine.protocol.topology import Topology
from saga_engine.settings import Settings
from saga_engine.vocabulary import ConnectionRole, ConnectionState

RPC_TIMEOUT = 3.0
"""
Seconds that the broker may take to open or close a channel; after that it counts as unreachable. A
declaration on an open connection has the same time; after it, opening a channel tests the broker.
"""

C = TypeVar("C", bound=Channel)


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """
    The status of a connection, reported at each change and at each failed attempt to connect.

    `generation` counts the connections that were opened; it is 0 before the first. `problem` says
    in a sentence why the connection does not work, without secrets; it is empty when it works.
    """

    role: ConnectionRole
    state: ConnectionState
    generation: int
    problem: str = ""


StatusObserver = Callable[[ConnectionStatus], None]


def ignore_status(_: ConnectionStatus) -> None:
    """Ignore the status."""


class SupervisedConnection(AsyncResource):
    """
    A supervised connection; `async with` owns it.

    Args:
        url: the URL of one host or of several: see `url.split_hosts`.
        role: what the process uses it for; shown in RabbitMQ's list of connections and in each
            status.
        wait_for_broker: whether entering waits for an unreachable broker; otherwise each host is
            tried once. A refused password or virtual host, and a topology mismatch, are raised
            immediately in both cases.
    """

    def __init__(
        self,
        url: str,
        *,
        role: ConnectionRole,
        settings: Settings,
        topology: Topology | None = None,
        on_status: StatusObserver = ignore_status,
        wait_for_broker: bool = False,
    ) -> None:
        self.role = role
        self.settings = settings
        self.topology = topology or Topology()
        self.status = ConnectionStatus(role, ConnectionState.CONNECTING, 0)
        url = url.strip()  # as in the settings: the line end of a file is not part of the URL
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

    async def _open(self, resources: AsyncExitStack) -> None:
        tolerant_decoding.install_decoders()
        driver.check_aiormq_hooks()
        await self._connect(initial=True)
        resources.callback(self._set_status, ConnectionState.CLOSED)
        await resources.enter_async_context(self._tasks)
        resources.push_async_callback(self._disconnect)
        supervisor_task = self._tasks.create_task(self._supervise())
        resources.callback(supervisor_task.cancel)

    async def _disconnect(self) -> None:
        self._closing = True
        self._connected.clear()
        self._publishable.clear()
        if self._connection:
            await driver.close(self._connection, driver.CLOSE_TIMEOUT)

    async def wait_connected(self) -> AmqpConnection:
        """Wait until the connection is open, and return it."""
        while not (self._connection and self._connected.is_set()):
            await self._connected.wait()
        return self._connection

    async def wait_publishable(self) -> None:
        """Wait until the connection is open and the broker accepts publishes."""
        await self._publishable.wait()

    def report_problem(self, problem: str) -> None:
        """Report the problem of a channel to the observer; an empty text reports its end."""
        if not self._closing:
            self._set_status(self.status.state, problem)

    def drop_connection(self, connection: AbstractConnection, problem: str) -> None:
        """
        Drop a connection that does not respond; another one is opened.

        A connection that has been replaced is ignored: its problem says nothing about the new one.
        """
        if connection is self._connection:
            driver.skip_close_handshake(connection)
            self.close_in_background(connection)
            self._connection_lost(connection, problem)

    def probe(self, connection: AbstractConnection) -> None:
        """
        Test a connection on which no response arrives, and drop it if it is stale.

        A broker that blocks publishers does not read the test either, so then there is none.
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
        Open a channel; drop the connection if it cannot be opened.

        Raises:
            BrokerUnavailable: the channel was not opened.
        """
        try:
            return await driver.open_channel(
                connection, channel_class, RPC_TIMEOUT, confirm_mode=confirm_mode
            )
        except BrokerError as error:
            # If the connection is closed already, its own reason is the better one.
            if self.status.state is ConnectionState.CONNECTED and not connection.is_closed:
                self.drop_connection(connection, str(error))
            raise

    async def redeclare_topology(self, connection: AmqpConnection) -> None:
        """
        Declare the topology again. If RabbitMQ does not respond, test the connection by `probe`.

        The connection is dropped only if that fails too: a cluster with one node that hangs may
        not respond to a declaration for a minute, and still deliver and confirm messages.

        Raises:
            TopologyMismatch, BrokerUnavailable: as `declare_topology`.
        """
        try:
            await declare_topology(connection, self.topology, RPC_TIMEOUT)
        except (driver.BrokerTimeout, asyncio.CancelledError):
            self.probe(connection)  # also when the caller gives up before RPC_TIMEOUT is over
            raise

    def close_in_background(self, resource: AmqpConnection | Channel) -> None:
        """
        Close a channel or a connection without waiting for it.

        A peer that does not respond to a channel's close is unreachable, and its connection is
        dropped. Heartbeats detect that as well, but only after three of them.
        """
        if not self._closing:
            self._tasks.create_task(self._close(resource))

    async def _probe(self, connection: AmqpConnection) -> None:
        try:
            await self._close(await self.open_channel(connection, Channel))
        except BrokerError:
            pass  # the connection was dropped by open_channel, is blocked, or was lost before
        finally:
            self._probe_task = None

    async def _close(self, resource: AmqpConnection | Channel) -> None:
        closed = await driver.close(resource, RPC_TIMEOUT)
        if not closed and isinstance(resource, Channel):
            self.drop_connection(resource.connection, "it does not respond")

    async def _supervise(self) -> None:
        while True:
            await self._disconnected.wait()
            await self._connect(initial=False)

    async def _connect(self, *, initial: bool) -> None:
        failures = 0
        while True:
            try:
                await self._connect_once()
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
        """Whether to retry the first connection, after `failures` earlier failures and this one."""
        has_untried_host = failures + 1 < len(self._host_urls)
        return isinstance(error, BrokerUnavailable) and (self._wait_for_broker or has_untried_host)

    def backoff_delay(self, failures: int) -> float:
        """Return the seconds before the next attempt; the jitter spreads the processes."""
        return self._backoff.delay(failures, random())  # noqa: S311 - no secret depends on it

    async def _connect_once(self) -> None:
        connection = await open_connection(
            self._host_urls[0], self.role, self.settings.broker_connect_timeout
        )
        try:
            await declare_topology(connection, self.topology, self.settings.broker_connect_timeout)
        except BaseException:
            await driver.close(connection, driver.CLOSE_TIMEOUT)
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
            return  # a connection that was dropped can still report this while it is closed
        self._publishable.clear()
        self._set_status(ConnectionState.BLOCKED, f"The broker accepts no publishes: {reason}.")

    def _connection_unblocked(self, connection: AmqpConnection) -> None:
        if connection is not self._connection:
            return
        self._publishable.set()
        self._set_status(ConnectionState.CONNECTED)

    def _set_status(
        self, state: ConnectionState, problem: str = "", *, generation: int | None = None
    ) -> None:
        self.status = ConnectionStatus(
            self.role, state, self.status.generation if generation is None else generation, problem
        )
        self._on_status(self.status)
