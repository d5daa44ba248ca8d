"""Events of a stream take effect once and in order, from the offsets in the consumer's database."""

from contextlib import AsyncExitStack

import pytest
from rstream import Producer

from saga_engine.errors import BrokerUnavailable
from saga_engine.events import from_stream
from saga_engine.events.consumers.interfaces import SourceLag, StartPoint
from saga_engine.events.consumers.stream_source import StreamSource
from saga_engine.settings import Settings
from saga_engine.telemetry.events import ConsumerMessageKept, FeedEventsPassed
from tests.kit.consumer_sources import StreamUnderTest
from tests.kit.consumers import (
    billing_consumer,
    check_effects,
    consumer_database,
    invoices,
    open_failures,
    running_consumers,
    stored_partitions,
    wait_for_invoices,
)
from tests.kit.feeds import every_event, running_feeds
from tests.kit.projections import append_orders
from tests.kit.streams import stream_feed, stream_url

pytestmark = pytest.mark.rabbitmq


@pytest.fixture
async def billing(event_url):
    async with consumer_database(event_url) as database:
        yield database


@pytest.fixture
def urls(rabbitmq, rabbitmq_url):
    """Where the streams of this test are."""
    return {
        "broker_url": rabbitmq_url,
        "broker_stream_url": stream_url(rabbitmq, rabbitmq_url),
    }


def running_feed(event_url, urls, **options):
    chosen = dict(urls)
    feed = stream_feed(**options)
    return running_feeds(event_url, chosen.pop("broker_url"), [feed], **chosen)


async def test_every_event_of_a_super_stream_takes_effect_once_and_in_order(
    events, event_url, urls, billing
):
    consumer = billing_consumer(from_stream("orders"))
    async with running_feed(event_url, urls, partitions=3) as published:
        await append_orders(events, 4)
        await published.wait_for(FeedEventsPassed)  # the stream is there
        await wait_for_streams(urls, event_url, billing, consumer, events)
        await append_orders(events, 2, seed=1)
        await wait_for_streams(urls, event_url, billing, consumer, events)
    await check_effects(billing, await every_event(events))
    stored = await stored_partitions(billing)
    assert [each.source for each in stored] == ["stream orders"] * 3
    assert sum(each.duplicates for each in stored) == 0
    assert all(each.next_offset for each in stored)


async def wait_for_streams(urls, event_url, billing, consumer, events):
    """Run a process until every event has taken effect."""
    async with running_consumers(event_url, [consumer], **urls):
        await wait_for_invoices(billing, len(await every_event(events)))


async def test_a_message_that_is_not_amqp_is_kept_and_the_next_one_takes_effect(
    events, event_url, rabbitmq, urls, billing
):
    consumer = billing_consumer(from_stream("orders"))
    async with running_feed(event_url, urls) as published:
        await append_orders(events, 1)
        await published.wait_for(FeedEventsPassed)  # the stream is there
        await wait_for_streams(urls, event_url, billing, consumer, events)
        vhost = urls["broker_url"].rpartition("/")[2]
        async with Producer(
            "127.0.0.1", rabbitmq.stream_port, username="guest", password="guest", vhost=vhost
        ) as producer:
            await producer.send_wait("orders", b"\x00not AMQP")
        await append_orders(events, 1, seed=1)
        await wait_for_streams(urls, event_url, billing, consumer, events)
    (failure,) = await open_failures(billing)
    assert (failure.kind, failure.error) == ("unreadable", "It is not a message of AMQP 1.0.")


async def test_a_batch_that_cannot_be_read_leaves_nothing_to_consume(
    event_url, rabbitmq, rabbitmq_url, urls, billing
):
    """Its messages are as many offsets; else some would wait without end after the last one."""
    source = StreamUnderTest(rabbitmq, rabbitmq_url)
    await source.create()
    await source.publish(1)
    await source.publish_batch([bytes(100_000)] * 3)
    consumer = billing_consumer(source.options)
    async with running_consumers(event_url, [consumer], max_batch_bytes=65_536, **urls) as emitted:
        await emitted.wait_for(ConsumerMessageKept)
    [stored] = await stored_partitions(billing)
    async with AsyncExitStack() as resources:
        opened = StreamSource("billing", source.options, Settings(**urls))
        resources.push_async_callback(opened.close)
        assert await opened.partition_count() == 1
        assert await opened.measure(0, stored.next_offset) == SourceLag(0, 0.0)
    async with running_consumers(event_url, [consumer], **urls):  # with limits that allow it
        await source.publish(2)
        await wait_for_invoices(billing, 2)
    (failure,) = await open_failures(billing)
    assert (failure.kind, failure.attempts) == ("unreadable", 1)
    assert "It is a batch of 3 messages that has more than 65536 bytes" in failure.error


async def test_messages_are_taken_up_to_the_bytes_of_a_batch(rabbitmq, rabbitmq_url, urls):
    source = StreamUnderTest(rabbitmq, rabbitmq_url)
    await source.create()
    for _ in range(2):
        await source.publish_batch([bytes(30_000)] * 3)
    opened = StreamSource("billing", source.options, Settings(max_batch_bytes=100_000, **urls))
    assert await opened.partition_count() == 1
    async with opened.subscribe(0, StartPoint(None)) as subscription:
        taken = [await subscription.take(100, 5.0) for _ in range(2)]
    assert [[each.offset for each in part] for part in taken] == [[0, 1, 2, 3], [4, 5]]


async def test_a_stream_that_is_missing_is_named(event_url, urls, billing):
    consumer = billing_consumer(from_stream("missing"))
    with pytest.raises(BrokerUnavailable, match="There is no stream 'missing'"):
        async with running_consumers(event_url, [consumer], **urls):
            pass
    assert await invoices(billing) == []
