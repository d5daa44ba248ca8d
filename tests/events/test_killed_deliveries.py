"""Feeds, consumers and the server between them are killed: each event takes effect once."""

import pytest

from saga_engine.events import from_queue
from saga_engine.events.feeds import feed_table
from tests.kit.connections import FAST_RECONNECT, raw_channel
from tests.kit.consumers import billing_consumer, consumer_database, running_consumers
from tests.kit.feeds import ORDERS, running_feeds, wait_for_feed
from tests.kit.kafka_feeds import FAST, TO_KAFKA
from tests.kit.kafka_topics import check_records, new_topic, read_topic
from tests.kit.killed_delivery import Delivery
from tests.kit.kills import KILL_VARIANTS, MANY_APPENDS, PATIENCE, THROUGHOUT
from tests.kit.projections import append_orders
from tests.kit.rabbitmq import RabbitMQServer
from tests.kit.servers import crashing_kafka
from tests.kit.streams import STREAM_ORDERS, THREE, stored_messages, stream_feed

TIMEOUT = pytest.mark.timeout(3 * PATIENCE)
RABBITMQ_VARIANTS = [
    pytest.param(500, 6, marks=pytest.mark.long),
    pytest.param(MANY_APPENDS, THROUGHOUT, marks=pytest.mark.kills),
]
"""RabbitMQ takes seconds to start again."""


@pytest.fixture
async def billing(event_url):
    async with consumer_database(event_url) as database:
        yield database


@pytest.mark.parametrize(("appends", "kills"), KILL_VARIANTS)
@TIMEOUT
@pytest.mark.usefixtures("kafka_is_installed")
async def test_each_event_takes_effect_once_by_kafka(events, event_url, billing, appends, kills):
    topic = new_topic()
    async with billing.transaction() as tx:
        await feed_table.register(tx, [TO_KAFKA])
    async with crashing_kafka() as server:

        async def count_stored(expected):
            records = await read_topic(server.servers, topic)
            check_records(records, expected)
            return len(records)

        delivery = Delivery(
            feed=TO_KAFKA,
            sink="kafka",
            source="kafka",
            name=topic,
            settings={"kafka_bootstrap_servers": server.servers, **FAST},
            database=billing,
            restart_server=server.restart,
        )
        await delivery.run(events, event_url, appends, kills, count_stored)


@pytest.mark.rabbitmq
@pytest.mark.parametrize(("appends", "kills"), RABBITMQ_VARIANTS)
@TIMEOUT
@pytest.mark.usefixtures("rabbitmq_is_installed")
async def test_each_event_takes_effect_once_by_a_stream(
    events, event_url, billing, stream_database, appends, kills
):
    async with RabbitMQServer() as server:
        settings = {"broker_url": server.url, "broker_stream_url": server.stream_url_of("/")}
        given = {**FAST_RECONNECT, "broker_stream_url": server.stream_url_of("/")}
        async with running_feeds(event_url, server.url, [stream_feed(partitions=3)], **given):
            await append_orders(events, 20)  # its streams are there
            await wait_for_feed(stream_database, await events.position())
        await server.sync_metadata()

        async def count_stored(expected):
            count = len(expected)
            found = await stored_messages(server.url, *THREE, count=count, patience=PATIENCE)
            found.check(expected)
            return len(found.ids)

        delivery = Delivery(
            feed=STREAM_ORDERS,
            sink="stream",
            source="stream",
            name="orders",
            settings=settings,
            database=billing,
            restart_server=restarting(server),
        )
        await delivery.run(events, event_url, appends, kills, count_stored)


@pytest.mark.rabbitmq
@pytest.mark.parametrize(("appends", "kills"), RABBITMQ_VARIANTS)
@TIMEOUT
@pytest.mark.usefixtures("rabbitmq_is_installed")
async def test_each_event_takes_effect_once_by_a_queue(
    events, event_url, billing, feed_database, appends, kills
):
    async with RabbitMQServer() as server:
        settings = {"broker_url": server.url}
        consumer = billing_consumer(from_queue())
        async with running_consumers(event_url, [consumer], **settings):
            pass  # it has declared its queue
        await server.sync_metadata()

        async def count_stored(expected):
            async with raw_channel(server.url) as channel:
                queue = await channel.queue_declare("saga.consumer.billing", passive=True)
            assert queue.message_count == 0
            return len(expected)

        delivery = Delivery(
            feed=ORDERS,
            sink="exchange",
            source="queue",
            name="orders",
            settings=settings,
            database=billing,
            restart_server=restarting(server),
        )
        await delivery.run(events, event_url, appends, kills, count_stored)


def restarting(server: RabbitMQServer):
    """Kill it, and start it again."""

    async def restart() -> None:
        server.kill()
        await server.restart()

    return restart
