"""Links, consumers and publishers as the tests of the broker open them."""

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

TOPOLOGY = participant_topology("tests", ["tests.one", "tests.two"])
QUEUE = participant_queue("tests")
FAST_RECONNECT = {
    "broker_reconnect_backoff": 0.01,
    "broker_reconnect_backoff_max": 0.05,
    "broker_connect_timeout": 10.0,
}


class StateRecorder:
    """What an observer was told, and a way to wait for it."""

    def __init__(self) -> None:
        self.states: list[ConnectionStatus] = []
        self._next_unread = 0
        self._changed = asyncio.Event()

    def __call__(self, state: ConnectionStatus) -> None:
        self.states.append(state)
        self._changed.set()

    async def wait_for(self, condition: Callable[[ConnectionStatus], bool]) -> ConnectionStatus:
        """The first state that fits, after the one found before."""
        async with asyncio.timeout(30):
            while True:
                while self._next_unread < len(self.states):
                    self._next_unread += 1
                    if condition(self.states[self._next_unread - 1]):
                        return self.states[self._next_unread - 1]
                self._changed.clear()
                await self._changed.wait()


async def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something that has no signal."""
    async with asyncio.timeout(30):
        while not condition():
            tick = asyncio.Event()
            asyncio.get_running_loop().call_later(0.01, tick.set)
            await tick.wait()


@asynccontextmanager
async def open_connection(url, name="consume", observer=None, topology=TOPOLOGY, **changes):
    """A link that reconnects quickly."""
    settings = Settings(**(FAST_RECONNECT | changes))
    async with SupervisedConnection(
        url, name=name, settings=settings, topology=topology, on_status=observer or StateRecorder()
    ) as link:
        yield link


@asynccontextmanager
async def open_publisher(url, observer=None, **changes):
    async with open_connection(url, "publish", observer, **changes) as link:
        yield Publisher(link)


@asynccontextmanager
async def open_single_publisher(url, observer=None, **changes):
    async with open_connection(url, "publish", observer, **changes) as link:
        yield SinglePublisher(link)


@asynccontextmanager
async def open_consumer(url, observer=None, queues=(QUEUE,), prefetch=None, urgent=(), **changes):
    async with (
        open_connection(url, "consume", observer, **changes) as link,
        Consumer(link, queues, prefetch=prefetch, urgent=urgent) as consumer,
    ):
        yield consumer


@asynccontextmanager
async def raw_channel(url):
    """
    A channel of aiormq, as another program might have it; to any host that answers.

    Each message is confirmed: what a quorum queue has not stored yet when its channel closes may be
    lost.
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
    """Exactly `count` deliveries."""
    taken: list[Delivery] = []
    async with asyncio.timeout(30):
        while len(taken) < count:
            taken += await consumer.take(count - len(taken))
    return taken
