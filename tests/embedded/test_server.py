"""The development broker cuts silent clients, applies backpressure and closes on shutdown."""

import asyncio

import aio_pika
from aiormq.exceptions import ConnectionInternalError

from saga_engine.embedded.broker import DevelopmentBroker
from tests.kit.raw_amqp import RawAmqpClient

PATIENCE = 5.0  # Seconds until a test fails.
SOON = 0.05  # Seconds to wait for a confirm that must not arrive.


async def publish(channel, body, *, patience=PATIENCE):
    message = aio_pika.Message(body)
    return await channel.default_exchange.publish(message, "orders", timeout=patience)


async def accepts(channel, body):
    try:
        await publish(channel, body, patience=SOON)
    except TimeoutError:
        return False
    return True


async def test_a_client_that_sends_no_heartbeats_is_disconnected(development_broker):
    async with RawAmqpClient.connect(development_broker.url, heartbeat=1) as client:
        assert await client.read_until_close() == []


async def test_publishers_are_blocked_while_the_memory_limit_is_reached():
    async with (
        DevelopmentBroker(memory_limit=100_000) as broker,
        await aio_pika.connect(broker.url) as publisher,
        await aio_pika.connect(broker.url) as consumer,
    ):
        channel = await publisher.channel()
        await channel.declare_queue("orders")
        accepted = 0
        while await accepts(channel, bytes(10_000)):
            accepted += 1
        assert 9 <= accepted <= 11
        queue = await (await consumer.channel()).get_queue("orders")
        assert await queue.purge()
        assert await publish(await publisher.channel(), b"again")


async def test_a_shutdown_closes_connections_with_the_reason():
    closed: asyncio.Queue = asyncio.Queue()
    async with DevelopmentBroker() as broker:
        connection = await aio_pika.connect(broker.url)
        connection.close_callbacks.add(lambda _, error: closed.put_nowait(error))
    async with asyncio.timeout(PATIENCE):
        error = await closed.get()
    assert not isinstance(error, ConnectionInternalError)
    assert "shutdown" in str(error)


async def test_it_identifies_itself_without_its_password(development_broker):
    async with await aio_pika.connect(development_broker.url) as connection:
        assert connection.transport is not None
        properties = connection.transport.connection.server_properties
    assert properties["product"] == "saga-engine development broker"
    assert "in memory" in development_broker.startup_notice
    assert "guest" not in development_broker.startup_notice
