"""Connections, consumers and publishers for tests, which reconnect quickly."""

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager, suppress

import aiormq
from aiormq.exceptions import AMQPConnectionError

from saga_engine.amqp.connection import ConnectionStatus, SupervisedConnection
from saga_engine.amqp.consumer import Consumer
from saga_engine.amqp.publisher import Publisher
from saga_engine.amqp.single_publisher import SinglePublisher
from saga_engine.amqp.url import split_hosts
from saga_engine.protocol.message import Delivery
from saga_engine.protocol.topology import participant_queue, participant_topology
from saga_engine.settings import Settings
from saga_engine.vocabulary import ConnectionRole

TOPOLOGY = participant_topology("tests", ["tests.one", "tests.two"])
QUEUE = participant_queue("tests")
FAST_RECONNECT = {
    "broker_reconnect_backoff": 0.01,
    "broker_reconnect_backoff_max": 0.05,
    "broker_connect_timeout": 10.0,
}


class StateRecorder:
    """Records each status of a connection, and waits for one."""

    def __init__(self) -> None:
        self.states: list[ConnectionStatus] = []
        self._next_unread = 0
        self._changed = asyncio.Event()

    def __call__(self, state: ConnectionStatus) -> None:
        self.states.append(state)
        self._changed.set()

    async def wait_for(self, condition: Callable[[ConnectionStatus], bool]) -> ConnectionStatus:
        """Return the next status that meets the condition, after the one found before."""
        async with asyncio.timeout(30):
            while True:
                while self._next_unread < len(self.states):
                    self._next_unread += 1
                    if condition(self.states[self._next_unread - 1]):
                        return self.states[self._next_unread - 1]
                self._changed.clear()
                await self._changed.wait()


async def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that has no event."""
    async with asyncio.timeout(30):
        while not condition():
            tick = asyncio.Event()
            asyncio.get_running_loop().call_later(0.01, tick.set)
            await tick.wait()


@asynccontextmanager
async def open_connection(
    url, role=ConnectionRole.CONSUME, observer=None, topology=TOPOLOGY, **changes
):
    """A connection that reconnects quickly."""
    settings = Settings(**(FAST_RECONNECT | changes))
    async with SupervisedConnection(
        url, role=role, settings=settings, topology=topology, on_status=observer or StateRecorder()
    ) as supervised:
        yield supervised


@asynccontextmanager
async def open_publisher(url, observer=None, **changes):
    async with open_connection(url, ConnectionRole.PUBLISH, observer, **changes) as supervised:
        yield Publisher(supervised)


@asynccontextmanager
async def open_single_publisher(url, observer=None, **changes):
    async with open_connection(url, ConnectionRole.PUBLISH, observer, **changes) as link:
        yield SinglePublisher(link)


@asynccontextmanager
async def open_consumer(url, observer=None, queues=(QUEUE,), prefetch=None, urgent=(), **changes):
    async with (
        open_connection(url, ConnectionRole.CONSUME, observer, **changes) as supervised,
        Consumer(supervised, queues, prefetch=prefetch, urgent=urgent) as consumer,
    ):
        yield consumer


@asynccontextmanager
async def raw_channel(url):
    """
    A channel of aiormq, as another program has it, to the first host that is reachable.

    Publishes are confirmed: a quorum queue may lose a message that it has not stored when the
    channel is closed.
    """
    connection = await _connect_any(split_hosts(url))
    try:
        yield await connection.channel(publisher_confirms=True)
    finally:
        await connection.close(ConnectionError("the test is over"))


async def _connect_any(urls):
    for url in urls[:-1]:
        with suppress(AMQPConnectionError, TimeoutError):
            async with asyncio.timeout(5):
                return await aiormq.connect(url)
    return await aiormq.connect(urls[-1])


async def take_exactly(consumer, count):
    """Take exactly `count` deliveries."""
    taken: list[Delivery] = []
    async with asyncio.timeout(30):
        while len(taken) < count:
            taken += await consumer.take(count - len(taken))
    return taken
