"""Connections are reset, half-open or slow, or answers are lost: nothing is lost or repeated."""

from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from saga_engine.events import Events, Feed, from_kafka, from_queue, from_stream
from saga_engine.events.feeds import feed_table, webhook_client
from saga_engine.settings import Settings
from saga_engine.telemetry.events import FeedEventsPassed
from tests.kit.connections import FAST_RECONNECT, wait_until
from tests.kit.consumers import (
    billing_consumer,
    check_effects,
    consumer_database,
    running_consumers,
    wait_for_invoices,
)
from tests.kit.feeds import every_event, order_feed, running_feeds, wait_for_feed
from tests.kit.kafka_feeds import TO_KAFKA, kafka_feed, running_kafka_feeds
from tests.kit.kafka_topics import new_topic
from tests.kit.programs import sleep
from tests.kit.projections import append_one, append_orders, cancelled, placed
from tests.kit.proxy import TcpProxy, running_proxy
from tests.kit.streams import stream_feed, stream_url
from tests.kit.webhook_receiver import ACCEPT
from tests.kit.webhooks import running_webhook, wait_for_waiting, waiting, webhook_feed

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
    """Append events before, during and after a fault that bytes or connections meet."""
    FAULTS[fault](proxy)
    await append_orders(events, 2, seed=1)
    await sleep(0.5)
    if fault == "lost answers":
        proxy.clear_faults()
    await append_orders(events, 2, seed=2)
    return await every_event(events)


async def consume_through(fault, proxy, events, billing):
    """As `publish_through`; each event takes effect, before and after the fault."""
    await append_orders(events, 2)
    await wait_for_invoices(billing, len(await every_event(events)))
    expected = await publish_through(fault, proxy, events)
    await wait_for_invoices(billing, len(expected))
    return expected


def check_felt(proxy: TcpProxy) -> None:
    """A fault that meets nothing shows nothing."""
    assert proxy.reset_connections or proxy.affected_bytes


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
        check_felt(proxy)
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
        check_felt(proxy)
    await check_effects(billing, expected)


@pytest.mark.rabbitmq
@EVERY_FAULT
async def test_between_an_exchange_and_a_feed_and_a_queue_and_a_consumer(
    events, event_url, rabbitmq_url, billing, fault
):
    async with running_proxy(rabbitmq_url) as proxy:
        settings = {**FAST_RECONNECT, "broker_confirm_timeout": 0.5, "broker_heartbeat": 5}
        consumer = billing_consumer(from_queue())
        async with (
            running_consumers(event_url, [consumer], broker_url=proxy.url, **settings),
            running_feeds(event_url, proxy.url, [order_feed(unroutable="stop")], **settings),
        ):
            expected = await consume_through(fault, proxy, events, billing)
        check_felt(proxy)
    await check_effects(billing, expected)


@EVERY_FAULT
async def test_between_postgresql_and_a_feed_and_a_consumer(tcp_url, development_broker, fault):
    """A lost answer to COMMIT, too, leaves each effect once."""
    url, limit = development_broker.url, {"database_transaction_timeout": 2.0}
    consumer = billing_consumer(from_queue())
    async with (
        Events(tcp_url, settings=Settings()) as events,
        consumer_database(tcp_url) as billing,
        running_proxy(tcp_url) as proxy,
        running_consumers(proxy.url, [consumer], broker_url=url, **limit),
        running_feeds(proxy.url, url, [order_feed()], **limit),
    ):
        expected = await consume_through(fault, proxy, events, billing)
        check_felt(proxy)
        await check_effects(billing, expected)


@pytest.fixture
async def webhook_proxy(receiver, monkeypatch):
    """A proxy before the receiver; a connection of the feed is kept as long as a test lasts."""
    monkeypatch.setattr(webhook_client, "KEEPALIVE_SECONDS", 120.0)
    async with running_proxy(receiver.url) as proxy:
        yield proxy


def hook_through(proxy: TcpProxy) -> Feed:
    return webhook_feed(f"https://localhost:{urlsplit(proxy.url).port}/hook")


async def wait_until_all_is_sent(database, events) -> None:
    await wait_for_feed(database, await events.position())
    await wait_for_waiting(database, 0)


@pytest.mark.parametrize("fault", FAULTS)
async def test_between_a_webhook_and_a_feed(
    events, event_url, receiver, webhook_proxy, webhook_database, fault
):
    limit = 1.0 if fault == "half-open" else 10.0
    async with running_webhook(event_url, hook_through(webhook_proxy), webhook_timeout=limit):
        await append_orders(events, 2)
        await wait_until_all_is_sent(webhook_database, events)
        expected = await publish_through(fault, webhook_proxy, events)
        await wait_until_all_is_sent(webhook_database, events)
    check_felt(webhook_proxy)
    receiver.check(expected)


async def test_a_webhook_request_on_a_half_open_connection_is_sent_again_on_another(
    events, event_url, receiver, webhook_proxy, webhook_database
):
    """Its stream waits no longer than `webhook_timeout`, and others go on."""
    async with running_webhook(
        event_url, hook_through(webhook_proxy), webhook_timeout=0.5, webhook_retry_delay=0.5
    ):
        await append_one(events, "order-1", placed())
        await wait_until_all_is_sent(webhook_database, events)
        (half_open,) = webhook_proxy.drop_open_connections()
        await append_one(events, "order-1", cancelled(), placed())
        await wait_for_waiting(webhook_database, 1)
        assert half_open.dropped_bytes > 0
        (stream,) = await waiting(webhook_database)
        assert "did not answer within 0.5 s (webhook_timeout)" in stream.problem
        await append_one(events, "order-2", placed())
        await wait_until_all_is_sent(webhook_database, events)
        await wait_until(lambda: half_open.is_closed)
    receiver.check(await every_event(events))
    assert len(receiver.requests) == 4  # what the network lost has not come twice


async def test_a_webhook_request_whose_answer_is_lost_is_repeated_with_its_id(
    events, event_url, receiver, webhook_proxy, webhook_database
):
    def take_and_lose_the_connection(_):
        receiver.behave = lambda _: ACCEPT
        webhook_proxy.drop_open_connections()
        return ACCEPT

    receiver.behave = take_and_lose_the_connection
    async with running_webhook(event_url, hook_through(webhook_proxy), webhook_timeout=0.5):
        await append_one(events, "order-1", placed(), cancelled(), placed())
        await wait_until_all_is_sent(webhook_database, events)
    first, second, third = [str(each.id) for each in await every_event(events)]
    assert [each.id for each in receiver.accepted] == [first, first, second, third]


async def test_while_no_byte_passes_a_webhook_is_unreachable_and_its_feed_waits(
    events, event_url, receiver, webhook_proxy, webhook_database
):
    """Connections are accepted, and their handshakes are not answered."""
    webhook_proxy.drop_all_data()
    async with running_webhook(
        event_url, hook_through(webhook_proxy), webhook_timeout=0.5
    ) as running:
        await append_orders(events, 2)
        assert "is unreachable: no connection was made" in await running.problem()
        assert await waiting(webhook_database) == []
        webhook_proxy.clear_faults()
        await wait_until_all_is_sent(webhook_database, events)
        assert running.publisher.problem is None
    receiver.check(await every_event(events))


async def test_a_webhook_that_is_slower_than_its_time_limit_gets_every_event_in_order(
    events, event_url, receiver, webhook_proxy, webhook_database
):
    """It takes a request after the feed has given it up."""
    async with running_webhook(event_url, hook_through(webhook_proxy), webhook_timeout=0.5):
        await append_one(events, "order-1", placed())
        await wait_until_all_is_sent(webhook_database, events)
        webhook_proxy.delay_s = 0.6
        await append_one(events, "order-1", cancelled(), placed())
        await wait_for_waiting(webhook_database, 1)
        await receiver.wait_for(2)
        webhook_proxy.delay_s = 0.0
        await wait_until_all_is_sent(webhook_database, events)
    first, second, third = [str(each.id) for each in await every_event(events)]
    received = [each.id for each in receiver.accepted]
    assert received == [first, *[second] * (len(received) - 2), third]
    assert len(received) > 3
