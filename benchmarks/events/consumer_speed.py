"""
The cases `consume-...`: events that are published take effect, a row each, in a service's table.

A feed publishes them before, and the client library those in a topic of Kafka. The consumer runs as
a process, in the same database as the events. The time begins with the first row after WARMUP. The
second line is what the process takes when everything is consumed.
"""

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass

from benchmarks.events import bare_clients, feed_speed, order_consumers, order_feeds, orders
from benchmarks.events.event_database import EventDatabase, start_event_database
from benchmarks.events.feed_speed import WARMUP, FeedCase
from benchmarks.events.running_reader import Reader, measure_idle, measure_speed, run_reader
from benchmarks.sink_servers import SinkServer, start_mock_kafka, start_sink_server
from saga_engine.events.feeds.feed import Sink

_FEEDS = {each.feed: each for each in feed_speed.CASES}


@dataclass(frozen=True, slots=True)
class ConsumerCase:
    """One case: a consumer of `order_consumers`, and the feed that publishes its events."""

    case: str
    consumer: str
    feed: FeedCase

    def start_server(self) -> AbstractAsyncContextManager[SinkServer]:
        """
        Start the server that it consumes from.

        For Kafka it is a mock: the server of the feed answers at once when it has no messages, and
        Kafka waits.
        """
        if self.feed.sink is Sink.KAFKA:
            return start_mock_kafka(order_consumers.TOPIC, order_feeds.PARTITIONS)
        return start_sink_server(self.feed.sink)

    def reader(self, server: SinkServer) -> Reader:
        """The process that consumes."""
        return Reader(
            name=getattr(order_consumers, self.consumer).name,
            command=("consume", f"{order_consumers.__name__}:{self.consumer}"),
            progress=_CONSUMED,
            environment=server.environment,
            servers={self.feed.sink.value: server.pid},
        )


CASES = (
    ConsumerCase("consume-queue", "queue", _FEEDS["to_exchange"]),
    ConsumerCase("consume-stream", "stream", _FEEDS["to_partitions"]),
    ConsumerCase("consume-kafka", "topic", _FEEDS["to_kafka"]),
)
MAX_EVENTS = 10_000


async def measure(names: Collection[str], events: int) -> AsyncIterator[Mapping[str, object]]:
    """Measure the cases of some names, with at most *events* events each."""
    for case in CASES:
        if case.case in names:
            async with AsyncExitStack() as stack:
                server = await stack.enter_async_context(case.start_server())
                database = await stack.enter_async_context(start_event_database())
                await database.create_tables(order_consumers.METADATA)
                async for line in _measure(case, server, database, min(events, MAX_EVENTS)):
                    yield line


async def _measure(
    case: ConsumerCase, server: SinkServer, database: EventDatabase, events: int
) -> AsyncIterator[Mapping[str, object]]:
    last = WARMUP + events
    consumer = case.reader(server)
    if consumer.name == order_consumers.queue.name:
        async with run_reader(database, consumer):
            pass  # it declares the queue, which receives what is published later
    await _publish(case.feed, server, database, last)
    async with run_reader(database, consumer) as running:
        speed = await measure_speed(running, WARMUP, last)
        yield {"case": case.case, "server": server.description, **speed}
        idle = await measure_idle(running)
        yield {"case": f"{case.case}-idle", "server": server.description, **idle}


async def _publish(
    feed: FeedCase, server: SinkServer, database: EventDatabase, number: int
) -> None:
    if feed.sink is Sink.KAFKA:
        await bare_clients.fill_topic(server, order_consumers.TOPIC, number)
        return
    await orders.fill(database, number)
    async with run_reader(database, feed.reader(server)) as running:
        await running.wait_for(number)


_CONSUMED = """
SELECT (SELECT count(*) FROM benchmark_consumed) FROM saga_engine.consumer
WHERE name = $1 AND owner IS NOT NULL LIMIT 1"""
