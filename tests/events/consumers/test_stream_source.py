"""Events of a stream take effect once and in order, from the offsets in the consumer's database."""

import pytest
from rstream import Producer

from saga_engine.errors import BrokerUnavailable
from saga_engine.events import from_stream
from saga_engine.telemetry.events import FeedEventsPassed
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


async def test_a_stream_that_is_missing_is_named(event_url, urls, billing):
    consumer = billing_consumer(from_stream("missing"))
    with pytest.raises(BrokerUnavailable, match="There is no stream 'missing'"):
        async with running_consumers(event_url, [consumer], **urls):
            pass
    assert await invoices(billing) == []
