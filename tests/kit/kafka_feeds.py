"""Feeds to Kafka, their sinks alone, and the events that these publish."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from saga_engine.events import Feed, Recorded
from saga_engine.events.feeds.confirmed_offsets import NO_OFFSETS, ConfirmedOffsets
from saga_engine.events.feeds.event_encoder import JsonEncoder
from saga_engine.events.feeds.feed import KafkaOptions, Sink
from saga_engine.events.feeds.feed_table import FeedKey
from saga_engine.events.feeds.kafka_sink import KafkaSink
from saga_engine.protocol.message import PublishOutcome
from saga_engine.settings import Settings
from tests.kit.events import EventRecorder
from tests.kit.feeds import running_feeds
from tests.kit.published_event import LOG

TO_KAFKA = FeedKey("to-kafka", Sink.KAFKA)
PARTITIONS = 3
FAST: dict[str, Any] = {
    "kafka_replication": 1,
    "kafka_request_timeout": 2.0,
    "kafka_delivery_timeout": 2.0,
}
"""Settings of a sink in a test: one server, and short waits."""


def kafka_options(topic: str, **given: Any) -> KafkaOptions:
    """What a feed declares."""
    declared: dict[str, Any] = {
        "partitions": PARTITIONS,
        "replication": 1,
        "retention": timedelta(days=7),
        "compression": "snappy",
        "max_message_bytes": 1_048_576,
        "encoding": "json",
        **given,
    }
    return KafkaOptions(topic=topic, **declared)


def kafka_feed(topic: str, **given: Any) -> Feed:
    """A feed of all events."""
    feed = Feed(TO_KAFKA.name)
    feed.to_kafka(topic, **{"partitions": PARTITIONS, "replication": 1, **given})
    return feed


def some_events(number: int, *, after: int = 0, size: int = 0) -> list[Recorded]:
    """Events of 20 streams, at the positions after one; each has at least so many bytes."""
    return [
        Recorded(
            stream=f"order-{index % 20}",
            version=index // 20 + 1,
            position=index + 1,
            type="order-placed",
            schema_version=1,
            recorded_at=datetime(2026, 11, 30, tzinfo=UTC),
            id=UUID(int=index + 1),
            data={"number": index, "note": "x" * size},
        )
        for index in range(after, after + number)
    ]


@asynccontextmanager
async def open_sink(
    servers: str,
    options: KafkaOptions,
    position: int = 0,
    confirmed: ConfirmedOffsets = NO_OFFSETS,
    **settings: Any,
) -> AsyncIterator[KafkaSink]:
    """A sink whose feed has published up to a position, and has saved what was confirmed."""
    chosen = Settings(**{"kafka_bootstrap_servers": servers, **FAST, **settings})

    async def read_confirmed() -> ConfirmedOffsets:
        return confirmed

    async with KafkaSink(
        TO_KAFKA, options, JsonEncoder(), LOG, chosen, read_confirmed=read_confirmed
    ) as sink:
        await sink.resume(position)
        yield sink


async def publish_all(sink: KafkaSink, events: Sequence[Recorded]) -> int:
    """Publish as a feed does, until every event is confirmed; return how often it has tried."""
    tries = 0
    waiting = list(events)
    while waiting:
        outcomes = await sink.publish(waiting)
        waiting = unconfirmed(waiting, outcomes)
        tries += 1
    return tries


def unconfirmed(events: Sequence[Recorded], outcomes: Sequence[PublishOutcome]) -> list[Recorded]:
    """
    Return the events to publish again.

    No event of a stream is confirmed after one that is not: a consumer would drop that one.
    """
    waiting = [
        event
        for event, outcome in zip(events, outcomes, strict=True)
        if outcome is not PublishOutcome.CONFIRMED
    ]
    streams = {each.stream for each in waiting}
    for event, outcome in zip(events, outcomes, strict=True):
        if outcome is PublishOutcome.CONFIRMED and event.stream in streams:
            assert event.position < min(
                each.position for each in waiting if each.stream == event.stream
            )
    return waiting


def running_kafka_feeds(
    database_url: str,
    servers: str,
    feeds: Sequence[Feed],
    *,
    broker_url: str = "",
    **settings: Any,
) -> AbstractAsyncContextManager[EventRecorder]:
    """A process with feeds to Kafka while the block runs; the telemetry events that it emits."""
    given = {"kafka_bootstrap_servers": servers, **FAST, **settings}
    return running_feeds(database_url, broker_url, feeds, **given)
