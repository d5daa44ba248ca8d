"""A batch is bounded by number, bytes and values, and takes urgent deliveries first."""

import asyncio
from dataclasses import replace

from saga_engine.amqp.batch_budget import BatchBudget
from saga_engine.protocol.topology import (
    Queue,
    Topology,
)
from tests.kit.connections import (
    open_consumer,
    open_publisher,
    wait_until,
)
from tests.kit.messages import make_message

URGENT, OTHER = "tests.urgent", "tests.other"
TWO = {"topology": Topology(queues=(Queue(URGENT), Queue(OTHER)))}


def sized(count, size, routing_key="tests.one"):
    return [make_message(routing_key, b"x" * size) for _ in range(count)]


async def test_batch_is_bounded_by_bytes_and_has_at_least_one_delivery(broker_url):
    async with open_publisher(broker_url) as publisher:
        await publisher.publish([*sized(5, 1000), *sized(1, 5000), *sized(2, 1000)])
    async with open_consumer(broker_url) as consumer:
        await wait_until(lambda: consumer.buffered_count == 8)
        taken = [await consumer.take(100, BatchBudget(max_bytes=2500)) for _ in range(5)]
    assert [len(each) for each in taken] == [2, 2, 1, 1, 2]


async def test_batch_is_bounded_by_values(broker_url):
    body = b"[" + b",".join([b"{}"] * 50) + b"]"  # 51 values, counted as at most 101
    async with open_publisher(broker_url) as publisher:
        await publisher.publish([make_message("tests.one", body) for _ in range(5)])
    async with open_consumer(broker_url) as consumer:
        await wait_until(lambda: consumer.buffered_count == 5)
        taken = [await consumer.take(100, BatchBudget(max_values=210)) for _ in range(3)]
    assert [len(each) for each in taken] == [2, 2, 1]


async def test_status_request_counts_the_size_of_its_answer(broker_url):
    async with open_publisher(broker_url) as publisher:
        questions = [replace(each, type="status") for each in sized(5, 10)]
        await publisher.publish(questions)
    async with open_consumer(broker_url) as consumer:
        await wait_until(lambda: consumer.buffered_count == 5)
        assert (
            len(await consumer.take(100, BatchBudget(max_bytes=1000, status_answer_bytes=400))) == 2
        )


def of(queue, count):
    return [make_message(queue, b"1", exchange="") for _ in range(count)]


async def test_urgent_deliveries_come_first_and_the_others_wait_one_batch(broker_url):
    async with (
        open_publisher(broker_url, **TWO) as publisher,
        open_consumer(broker_url, queues=(URGENT, OTHER), urgent=(URGENT,), **TWO) as consumer,
    ):
        await publisher.publish([*of(OTHER, 25), *of(URGENT, 25)])
        await wait_until(lambda: consumer.buffered_count == 50)
        batches = []
        while consumer.buffered_count:
            taken = await consumer.take(10)
            batches.append([each.queue for each in taken].count(URGENT))
    assert batches == [10, 0, 10, 0, 5]


async def test_only_urgent_leaves_the_other_deliveries_buffered(broker_url):
    full = True
    async with (
        open_publisher(broker_url, **TWO) as publisher,
        open_consumer(broker_url, queues=(URGENT, OTHER), urgent=(URGENT,), **TWO) as consumer,
        asyncio.TaskGroup() as group,
    ):
        await publisher.publish(of(OTHER, 3))
        await wait_until(lambda: consumer.buffered_count == 3)
        waiting = group.create_task(consumer.take(10, only_urgent=lambda: full))
        await publisher.publish(of(URGENT, 1))
        assert [each.queue for each in await waiting] == [URGENT]
        waiting = group.create_task(consumer.take(10, only_urgent=lambda: full))
        await consumer.stop()
        full = False
        consumer.wake()
        assert [each.queue for each in await waiting] == [OTHER] * 3
        assert await consumer.take(10, only_urgent=lambda: True) == []
