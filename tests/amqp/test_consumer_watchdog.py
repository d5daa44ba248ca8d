"""The watchdog finds a consumer that receives nothing, and restores the topology."""

import asyncio

from aiormq.exceptions import ChannelNotFoundEntity

from saga_engine.protocol.topology import (
    COMMANDS,
)
from tests.kit.connections import (
    QUEUE,
    StateRecorder,
    open_consumer,
    open_publisher,
    raw_channel,
    take_exactly,
)
from tests.kit.messages import numbered_messages, numbers_of
from tests.kit.programs import sleep


async def test_watchdog_finds_a_missing_consumer(broker_url):
    observer = StateRecorder()
    async with (
        open_consumer(broker_url, observer, broker_topology_check_interval=0.2) as consumer,
        open_publisher(broker_url) as publisher,
    ):
        for tag in list(consumer._channel.queue_by_consumer_tag):
            await consumer._channel.basic_cancel(tag)
        await publisher.publish(numbered_messages(1))
        assert numbers_of(await take_exactly(consumer, 1)) == [0]
    assert any("no consumer" in state.problem for state in observer.states)


async def test_watchdog_ignores_an_empty_queue_without_consumers(
    broker_url,
):
    observer = StateRecorder()
    async with (
        open_consumer(broker_url, observer, broker_topology_check_interval=0.05) as consumer,
        open_publisher(broker_url) as publisher,
    ):
        for tag in list(consumer._channel.queue_by_consumer_tag):
            await consumer._channel.basic_cancel(tag)
        await sleep(1)  # many checks find what RabbitMQ reports for a slow leader
        await consumer._channel.consume_queue(QUEUE, 5)
        await publisher.publish(numbered_messages(1))
        assert numbers_of(await take_exactly(consumer, 1)) == [0]
        assert consumer.generation == 1
        assert not any(state.problem for state in observer.states)


async def test_watchdog_keeps_a_healthy_consumer(broker_url):
    observer = StateRecorder()
    async with (
        open_consumer(broker_url, observer, broker_topology_check_interval=0.05) as consumer,
        open_publisher(broker_url) as publisher,
    ):
        for _ in range(20):
            await publisher.publish(numbered_messages(1))
            await consumer.acknowledge(await take_exactly(consumer, 1))
        assert consumer.generation == 1
        assert not any(state.problem for state in observer.states)


async def test_watchdog_restores_a_deleted_binding(broker_url):
    async with (
        open_consumer(broker_url, broker_topology_check_interval=0.1) as consumer,
        open_publisher(broker_url) as publisher,
        raw_channel(broker_url) as channel,
    ):
        await channel.queue_unbind(QUEUE, COMMANDS, "tests.one")
        async with asyncio.timeout(30):
            while await publisher.publish(numbered_messages(1)) != ["confirmed"]:
                pass
        assert numbers_of(await take_exactly(consumer, 1)) == [0]


async def test_watchdog_reports_a_changed_exchange_and_restores_a_deleted_one(
    broker_url,
):
    observer = StateRecorder()
    async with (
        open_consumer(broker_url, observer, broker_topology_check_interval=0.5) as consumer,
        raw_channel(broker_url) as channel,
    ):
        await channel.exchange_delete(COMMANDS)
        await channel.exchange_declare(COMMANDS, exchange_type="fanout", durable=True)
        await observer.wait_for(lambda state: "exists with other arguments" in state.problem)
        await channel.exchange_delete(COMMANDS)
        async with asyncio.timeout(30):
            while not await exists(broker_url, COMMANDS):
                pass
        async with open_publisher(broker_url) as publisher:
            await publisher.publish(numbered_messages(1))
        assert numbers_of(await take_exactly(consumer, 1)) == [0]
        assert consumer.generation == 1, "consuming went on meanwhile"


async def exists(url, exchange):
    async with raw_channel(url) as channel:
        try:
            await channel.exchange_declare(exchange, passive=True)
        except ChannelNotFoundEntity:
            return False
    return True
