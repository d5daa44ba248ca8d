"""Connections are reset, half-open or slow, or answers are lost: nothing is lost or repeated."""

from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from saga_engine.events import from_kafka, from_stream
from saga_engine.events.feeds import feed_table
from saga_engine.telemetry.events import FeedEventsPassed
from tests.kit.connections import FAST_RECONNECT
from tests.kit.consumers import (
    billing_consumer,
    check_effects,
    consumer_database,
    running_consumers,
    wait_for_invoices,
)
from tests.kit.feeds import every_event, running_feeds, wait_for_feed
from tests.kit.kafka_feeds import TO_KAFKA, kafka_feed, running_kafka_feeds
from tests.kit.kafka_topics import new_topic
from tests.kit.programs import sleep
from tests.kit.projections import append_orders
from tests.kit.proxy import TcpProxy, running_proxy
from tests.kit.streams import stream_feed, stream_url
from tests.kit.webhooks import running_webhook, wait_for_waiting, webhook_feed

BYTES_PER_SECOND = 40_000


def slow_down(proxy: TcpProxy) -> None:
    proxy.bytes_per_s = BYTES_PER_SECOND


FAULTS: dict[str, Callable[[TcpProxy], object]] = {
    "reset": TcpProxy.reset,
    "slow": slow_down,
    "lost answers": TcpProxy.drop_server_data,
    "half-open": TcpProxy.drop_open_connections,
}
SLOW_FAULTS = ("slow", "lost answers", "half-open")

EVERY_FAULT = pytest.mark.parametrize(
    "fault",
    ["reset", *(pytest.param(each, marks=pytest.mark.long) for each in SLOW_FAULTS)],
)
"""A consumer notices after an interval of heartbeats that a connection is half-open."""

KAFKA_PATIENCE = 30.0
"""
Seconds: one of Kafka notices it after `kafka_socket_timeout`, by default 10 s, as here. It connects
again within 5 s, and this machine is busy. librdkafka's own default is 60 s.
"""


@pytest.fixture
async def billing(event_url):
    async with consumer_database(event_url) as database:
        yield database


async def publish_through(fault, proxy, events):
    """Append events before, during and after a fault."""
    FAULTS[fault](proxy)
    await append_orders(events, 2, seed=1)
    await sleep(0.5)
    if fault == "lost answers":
        proxy.clear_faults()
    await append_orders(events, 2, seed=2)
    return await every_event(events)


@EVERY_FAULT
@pytest.mark.timeout(120)
async def test_between_kafka_and_a_feed_and_a_consumer(events, event_url, kafka, billing, fault):
    topic = new_topic()
    async with billing.transaction() as tx:
        await feed_table.register(tx, [TO_KAFKA])
    async with running_proxy(f"tcp://{kafka.servers}") as proxy:
        proxy.from_server.rewrite = kafka.addressed(proxy.url)
        servers = proxy.url.removeprefix("tcp://")
        async with running_kafka_feeds(event_url, servers, [kafka_feed(topic)]):
            await append_orders(events, 2)
            await wait_for_feed(billing, await events.position(), TO_KAFKA.name)
            consumer = billing_consumer(from_kafka(topic))
            async with running_consumers(event_url, [consumer], kafka_bootstrap_servers=servers):
                await wait_for_invoices(billing, len(await every_event(events)))
                expected = await publish_through(fault, proxy, events)
                await wait_for_invoices(billing, len(expected), patience=KAFKA_PATIENCE)
    await check_effects(billing, expected)


@pytest.mark.rabbitmq
@EVERY_FAULT
async def test_between_a_stream_and_a_feed_and_a_consumer(
    events, event_url, rabbitmq, rabbitmq_url, billing, fault
):
    async with running_proxy(stream_url(rabbitmq, rabbitmq_url)) as proxy:
        settings = {
            **FAST_RECONNECT,
            "broker_stream_url": proxy.url,
            "broker_confirm_timeout": 0.5,
            "broker_heartbeat": 5,
        }
        feed = stream_feed(partitions=3)
        async with running_feeds(event_url, rabbitmq_url, [feed], **settings) as published:
            await append_orders(events, 2)
            await published.wait_for(FeedEventsPassed)  # the stream is there
            consumer = billing_consumer(from_stream("orders"))
            async with running_consumers(
                event_url, [consumer], broker_url=rabbitmq_url, **settings
            ):
                await wait_for_invoices(billing, len(await every_event(events)))
                expected = await publish_through(fault, proxy, events)
                await wait_for_invoices(billing, len(expected))
    await check_effects(billing, expected)


@pytest.mark.parametrize("fault", ["reset", "slow"])
async def test_between_a_webhook_and_a_feed(events, event_url, receiver, webhook_database, fault):
    async with running_proxy(receiver.url) as proxy:
        url = f"https://localhost:{urlsplit(proxy.url).port}/hook"
        async with running_webhook(event_url, webhook_feed(url)):
            await append_orders(events, 2)
            await wait_for_feed(webhook_database, await events.position())
            await publish_through(fault, proxy, events)
            await wait_for_feed(webhook_database, await events.position())
            await wait_for_waiting(webhook_database, 0)
    receiver.check(await every_event(events))
