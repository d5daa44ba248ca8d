"""
The cases `consume-...`: events that are published take effect, a row each, in a service's table.

A feed publishes them before. The consumer runs as a process, in the same database as the events.
The time begins with the first row after WARMUP.
"""

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

from benchmarks.events import feed_speed, order_consumers, orders
from benchmarks.events.event_database import EventDatabase, start_event_database
from benchmarks.events.feed_speed import WARMUP, FeedCase
from benchmarks.events.running_reader import Reader, measure_speed, run_reader
from benchmarks.sink_servers import SinkServer, start_sink_server

_FEEDS = {each.feed: each for each in feed_speed.CASES}


@dataclass(frozen=True, slots=True)
class ConsumerCase:
    """One case: a consumer of `order_consumers`, and the feed that publishes its events."""

    case: str
    consumer: str
    feed: FeedCase

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
                server = await stack.enter_async_context(start_sink_server(case.feed.sink))
                database = await stack.enter_async_context(start_event_database())
                await database.create_tables(order_consumers.METADATA)
                yield await _measure(case, server, database, min(events, MAX_EVENTS))


async def _measure(
    case: ConsumerCase, server: SinkServer, database: EventDatabase, events: int
) -> Mapping[str, object]:
    last = WARMUP + events
    await orders.fill(database, last)
    consumer = case.reader(server)
    if consumer.name == order_consumers.queue.name:
        async with run_reader(database, consumer):
            pass  # it declares the queue, which receives what is published later
    async with run_reader(database, case.feed.reader(server)) as feed:
        await feed.wait_for(last)
    async with run_reader(database, consumer) as running:
        speed = await measure_speed(running, WARMUP, last)
    return {"case": case.case, "server": server.description, **speed}


_CONSUMED = """
SELECT (SELECT count(*) FROM benchmark_consumed) FROM saga_engine.consumer
WHERE name = $1 AND owner IS NOT NULL LIMIT 1"""
