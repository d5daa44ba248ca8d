"""
The cases `feed-...`: events that are stored are published to a sink, and the lag of the feed.

Before it, the client library of the sink publishes the same messages alone (`client_events_per_s`).
Then a projector with one feed runs as a process, and two lines are printed: how fast it publishes
stored events, from the first one after WARMUP that it has passed; and its lag while events are
appended at a steady rate. A feed has passed an event when its sink has confirmed it and the
position is saved.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from benchmarks.event_readers import bound_queue
from benchmarks.events import bare_clients, order_feeds, orders
from benchmarks.events.event_database import EventDatabase, start_event_database
from benchmarks.events.lag import EVENTS_PER_SECOND, measure_lag
from benchmarks.events.running_reader import Reader, measure_speed, run_reader
from benchmarks.sink_servers import SinkServer, start_sink_server
from saga_engine.events.feeds.feed import Sink

WARMUP = 1_000
"""Events that are published before a measurement: connections, partitions, statements."""

LAG_SECONDS = 10
"""For how long events are appended to measure the lag."""

MAX_BARE = 20_000
"""Messages of a client alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedCase:
    """
    One case.

    Args:
        case: its name.
        feed: the name of the feed in `order_feeds`.
        sink: its kind of sink.
        events: how many are published; a sink that is slow has fewer.
        events_per_second: the rate at which events are appended for the lag.
        publish_alone: publishes some messages with the client library of the sink.
        tried: events/s of that library when it was chosen, see TRIED; None: that was not measured.
        is_avro: the feed publishes in Avro, and the library alone the same events in JSON.
    """

    case: str
    feed: str
    sink: Sink
    events: int
    events_per_second: int = EVENTS_PER_SECOND
    publish_alone: Callable[[SinkServer, int], Awaitable[float]]
    tried: int | None = None
    is_avro: bool = False

    def reader(self, server: SinkServer) -> Reader:
        """The process that publishes."""
        return Reader(
            name=getattr(order_feeds, self.feed).name,
            command=("projector", f"{order_feeds.__name__}:{self.feed}"),
            progress=_POSITION,
            environment=server.environment,
            servers={self.sink.value: server.pid},
        )


TRIED = {Sink.STREAM: 12_000, Sink.KAFKA: 26_000}
"""
Events/s of the libraries alone when they were chosen, on two cores with other load.

20,000 messages of 300 bytes each: rstream 1.1.1 in batches of 100, which it encodes as AMQP 1.0
with properties, to one stream of RabbitMQ 3.10.8; confluent-kafka 2.16.1's Producer, idempotent and
with snappy, to a topic of noida-db 0.2.3.
"""

CASES = (
    FeedCase(
        case="feed-exchange",
        feed="to_exchange",
        sink=Sink.EXCHANGE,
        events=20_000,
        publish_alone=bare_clients.publish_to_exchange,
    ),
    FeedCase(
        case="feed-stream",
        feed="to_stream",
        sink=Sink.STREAM,
        events=60_000,
        publish_alone=partial(bare_clients.publish_to_stream, partitions=1),
        tried=TRIED[Sink.STREAM],
    ),
    FeedCase(
        case="feed-stream-10",
        feed="to_partitions",
        sink=Sink.STREAM,
        events=60_000,
        publish_alone=partial(bare_clients.publish_to_stream, partitions=order_feeds.PARTITIONS),
        tried=TRIED[Sink.STREAM],
    ),
    FeedCase(
        case="feed-kafka",
        feed="to_kafka",
        sink=Sink.KAFKA,
        events=60_000,
        publish_alone=partial(bare_clients.publish_to_kafka, partitions=order_feeds.PARTITIONS),
        tried=TRIED[Sink.KAFKA],
    ),
    FeedCase(
        case="feed-stream-10-avro",
        feed="to_partitions_in_avro",
        sink=Sink.STREAM,
        events=60_000,
        publish_alone=partial(bare_clients.publish_to_stream, partitions=order_feeds.PARTITIONS),
        tried=TRIED[Sink.STREAM],
        is_avro=True,
    ),
    FeedCase(
        case="feed-kafka-avro",
        feed="to_kafka_in_avro",
        sink=Sink.KAFKA,
        events=60_000,
        publish_alone=partial(bare_clients.publish_to_kafka, partitions=order_feeds.PARTITIONS),
        tried=TRIED[Sink.KAFKA],
        is_avro=True,
    ),
    FeedCase(
        case="feed-webhook",
        feed="to_webhook",
        sink=Sink.WEBHOOK,
        events=3_000,
        events_per_second=100,
        publish_alone=bare_clients.send_to_webhook,
    ),
)


async def measure(names: Collection[str], events: int) -> AsyncIterator[Mapping[str, object]]:
    """Measure the cases of some names, with at most *events* events each."""
    for case in CASES:
        if case.case in names:
            number = min(events, case.events)
            async with AsyncExitStack() as stack:
                server = await stack.enter_async_context(start_sink_server(case.sink))
                database = await stack.enter_async_context(start_event_database())
                if case.sink is Sink.EXCHANGE:
                    await stack.enter_async_context(bound_queue(server.address))
                async for line in _measure(case, server, database, number):
                    yield line


async def _measure(
    case: FeedCase, server: SinkServer, database: EventDatabase, events: int
) -> AsyncIterator[Mapping[str, object]]:
    alone = await case.publish_alone(server, min(events, MAX_BARE))
    await orders.fill(database, WARMUP + events)
    if case.is_avro:
        await database.run_command("schemas", "register", orders.__name__)
    async with run_reader(database, case.reader(server)) as feed:
        speed = await measure_speed(feed, WARMUP, WARMUP + events)
        yield {
            "case": case.case,
            "server": server.description,
            **speed,
            "client_events_per_s": round(alone),
            "share_of_client": round(float(str(speed["events_per_s"])) / alone, 2),
            **({"tried_events_per_s": case.tried} if case.tried else {}),
        }
        rate = case.events_per_second
        lag = await measure_lag(database, feed, WARMUP + events, rate * LAG_SECONDS, rate)
        yield {"case": f"{case.case}-lag", "server": server.description, **lag}


_POSITION = "SELECT position FROM saga_engine.feed WHERE name = $1 AND owner IS NOT NULL"
