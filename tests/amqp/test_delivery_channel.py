"""Deliveries are acknowledged once, in any order, and long bodies are truncated."""

from tests.kit.connections import (
    QUEUE,
    open_consumer,
    open_publisher,
    raw_channel,
    take_exactly,
)
from tests.kit.messages import make_message, numbered_messages, numbers_of


async def test_only_unacknowledged_deliveries_are_redelivered(broker_url):
    async with open_publisher(broker_url) as publisher:
        await publisher.publish(numbered_messages(10))
    async with open_consumer(broker_url) as consumer:
        held = await take_exactly(consumer, 10)
        await consumer.acknowledge(held[5:7])
        await consumer.acknowledge(held[0:2])
        await consumer.acknowledge(held[4:6])  # One of them is acknowledged twice.
        await consumer.acknowledge([held[2], held[9]])
        await consumer.acknowledge(held[0:3])  # All of them are acknowledged twice.
        await consumer.stop()
        unsettled = numbers_of([held[3], held[7], held[8]])
    async with open_consumer(broker_url) as consumer:
        again = await take_exactly(consumer, 3)
        assert numbers_of(again) == unsettled
        assert all(delivery.redelivered for delivery in again)
        await consumer.acknowledge(again)
        await consumer.stop()
    async with raw_channel(broker_url) as channel:
        assert (await channel.queue_declare(QUEUE, passive=True)).message_count == 0


async def test_batches_can_be_acknowledged_in_any_order(broker_url):
    async with (
        open_consumer(broker_url, prefetch=50) as consumer,
        open_publisher(broker_url) as sender,
    ):
        await sender.publish(numbered_messages(300))
        seen = []
        for _ in range(15):
            held = await take_exactly(consumer, 20)
            seen += held
            for delivery in sorted(held, key=lambda one: (one.delivery_tag * 7) % 20):
                await consumer.acknowledge([delivery])
        await consumer.stop()
        assert consumer._channel.unacked_count == 0
    assert numbers_of(seen) == list(range(300))
    async with raw_channel(broker_url) as channel:
        assert (await channel.queue_declare(QUEUE, passive=True)).message_count == 0


async def test_long_body_is_truncated_and_keeps_its_size(broker_url):
    kept = {"max_dead_letter_body_bytes": 1000, "max_body_bytes": 500}
    async with (
        open_consumer(broker_url, **kept) as consumer,
        open_publisher(broker_url) as publisher,
    ):
        await publisher.publish(
            [make_message("tests.one", b"x" * 200_000), make_message("tests.two", b"y")]
        )
        large, small = await take_exactly(consumer, 2)
    assert (large.body_size, large.body) == (200_000, b"x" * 1000)
    assert (small.body_size, small.body) == (1, b"y")
