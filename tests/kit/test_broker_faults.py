"""Fault rules of the development broker change exactly the messages that they match."""

import asyncio
from collections.abc import AsyncIterator

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import DeliveryError
from pamqp import commands

from saga_engine.embedded.broker.message import PublishedMessage
from tests.kit.amqp_properties import content_header
from tests.kit.broker_faults import (
    FaultyBroker,
    HeldPublishes,
    abort_before_confirm,
    delay,
    drop_confirm,
    duplicate,
    lose_after_confirm,
    nack,
    reorder,
)
from tests.kit.raw_amqp import HEADER, RawAmqpClient

PATIENCE = 5.0  # Seconds until a test fails.
SOON = 0.05  # Seconds to wait for a confirm that must not arrive.


@pytest.fixture
async def connection(development_broker: FaultyBroker) -> AsyncIterator[AbstractConnection]:
    connection = await aio_pika.connect(development_broker.url)
    yield connection
    await connection.close()


@pytest.fixture
async def channel(connection: AbstractConnection) -> AbstractChannel:
    channel = await connection.channel(on_return_raises=True)
    await channel.declare_queue("orders")
    return channel


def anything(_: PublishedMessage) -> bool:
    return True


async def publish(channel: AbstractChannel, body: bytes = b"x", *, patience: float = PATIENCE):
    message = aio_pika.Message(body)
    return await channel.default_exchange.publish(message, "orders", timeout=patience)


async def accepts(channel: AbstractChannel, body: bytes) -> bool:
    try:
        await publish(channel, body, patience=SOON)
    except TimeoutError:
        return False
    return True


async def drain(channel: AbstractChannel) -> list[bytes]:
    queue = await channel.get_queue("orders")
    bodies = []
    while message := await queue.get(fail=False, no_ack=True):
        bodies.append(message.body)
    return bodies


async def test_a_message_lost_after_its_confirm_is_not_delivered(development_broker, channel):
    rule = development_broker.faults.on_publish(anything, lose_after_confirm)
    assert isinstance(await publish(channel, b"lost"), commands.Basic.Ack)
    await publish(channel, b"kept")
    assert await drain(channel) == [b"kept"]
    assert rule.fired_count == 1


async def test_a_rule_fires_for_matching_messages_up_to_its_maximum(development_broker, channel):
    def is_reply(message: PublishedMessage) -> bool:
        return message.properties.message_type == "reply" and message.routing_key == "orders"

    rule = development_broker.faults.on_publish(is_reply, lose_after_confirm, max_count=2)
    for body, kind in (b"1", "command"), (b"2", "reply"), (b"3", "reply"), (b"4", "reply"):
        message = aio_pika.Message(body, type=kind)
        await channel.default_exchange.publish(message, "orders", timeout=PATIENCE)
    assert await drain(channel) == [b"1", b"4"]
    assert rule.fired_count == 2
    assert rule.exhausted.is_set()


async def test_a_duplicated_message_is_delivered_twice(development_broker, channel):
    development_broker.faults.on_publish(anything, duplicate)
    await publish(channel)
    assert await drain(channel) == [b"x", b"x"]


async def test_a_nacked_message_is_not_delivered(development_broker, channel):
    development_broker.faults.on_publish(anything, nack)
    with pytest.raises(DeliveryError):
        await publish(channel)
    assert await drain(channel) == []


async def test_a_dropped_confirm_leaves_the_publisher_waiting(development_broker, channel):
    development_broker.faults.on_publish(anything, drop_confirm)
    with pytest.raises(TimeoutError):
        await publish(channel, patience=SOON)
    other = await aio_pika.connect(development_broker.url)
    async with other:
        assert await drain(await other.channel()) == [b"x"]


async def test_an_abort_before_the_confirm_delivers_the_message(development_broker, channel):
    development_broker.faults.on_publish(anything, abort_before_confirm)
    with pytest.raises((ConnectionError, asyncio.CancelledError)):
        await publish(channel)
    async with await aio_pika.connect(development_broker.url) as other:
        assert await drain(await other.channel()) == [b"x"]


async def test_a_delayed_message_is_delivered_later(development_broker, channel):
    development_broker.faults.on_publish(anything, delay(SOON))
    arrived: asyncio.Queue = asyncio.Queue()
    await (await channel.get_queue("orders")).consume(arrived.put, no_ack=True)
    await publish(channel, b"slow")
    await publish(channel, b"fast")
    async with asyncio.timeout(PATIENCE):
        assert [(await arrived.get()).body for _ in range(2)] == [b"fast", b"slow"]


async def test_held_messages_are_delivered_on_release(development_broker, channel):
    hold = HeldPublishes()
    development_broker.faults.on_publish(anything, hold, max_count=2)
    await publish(channel, b"1")
    await publish(channel, b"2")
    assert await drain(channel) == []
    hold.release(reverse=True)
    assert await drain(channel) == [b"2", b"1"]


async def test_reordered_messages_are_delivered_in_reverse(development_broker, channel):
    development_broker.faults.on_publish(anything, reorder(3), max_count=3)
    for body in b"1", b"2", b"3", b"4":
        await publish(channel, body)
    assert await drain(channel) == [b"3", b"2", b"1", b"4"]


async def test_aborted_connections_requeue_their_messages(development_broker, channel):
    await publish(channel)
    await (await channel.get_queue("orders")).get()
    assert development_broker.faults.abort_connections() == 1
    async with await aio_pika.connect(development_broker.url) as other:
        queue = await (await other.channel()).get_queue("orders")
        async with asyncio.timeout(PATIENCE):
            message = await queue.get(timeout=PATIENCE)
        assert message.redelivered


async def test_blocked_publishers_wait_until_they_are_unblocked(development_broker, channel):
    faults = development_broker.faults
    await publish(channel)
    faults.block_publishers("low on disk")
    assert not await accepts(channel, b"late")
    faults.unblock_publishers()
    async with await aio_pika.connect(development_broker.url) as other:
        queue = await (await other.channel()).get_queue("orders")
        arrived: asyncio.Queue = asyncio.Queue()
        await queue.consume(arrived.put, no_ack=True)
        async with asyncio.timeout(PATIENCE):
            assert [(await arrived.get()).body for _ in range(2)] == [b"x", b"late"]


async def test_publishers_are_notified_of_the_block_and_its_end(development_broker):
    faults = development_broker.faults
    async with RawAmqpClient.connect(development_broker.url) as client:
        faults.block_publishers("low on disk")
        client.send(commands.Basic.Publish(routing_key="unbound"))
        client.send_frame(HEADER, content_header(0, b"", 0))
        blocked = await client.read_method()
        assert isinstance(blocked, commands.Connection.Blocked)
        assert blocked.reason == "low on disk"
        faults.unblock_publishers()
        assert isinstance(await client.read_method(), commands.Connection.Unblocked)
