import asyncio

import pytest

from saga_engine.amqp.delivery_channel import DeliveryChannel
from saga_engine.amqp.optional_queues import OptionalQueues
from saga_engine.errors import BrokerUnavailable
from saga_engine.protocol.topology import (
    CLIENT_TOPOLOGY,
    EVENTS,
    Binding,
    Queue,
    Topology,
    client_topology,
)
from tests.kit.connections import (
    QUEUE,
    StateRecorder,
    open_consumer,
    open_publisher,
    raw_channel,
    take_exactly,
    wait_until,
)
from tests.kit.messages import make_message, numbered_messages, numbers_of
from tests.kit.proxy import running_proxy

URGENT, OTHER = "tests.urgent", "tests.other"
TWO = {"topology": Topology(queues=(Queue(URGENT), Queue(OTHER)))}


async def test_take_returns_what_has_arrived_and_no_more_than_the_limit(broker_url):
    async with open_consumer(broker_url) as consumer, open_publisher(broker_url) as publisher:
        await publisher.publish(numbered_messages(5))
        (first,) = await consumer.take(1)
        rest = await take_exactly(consumer, 4)
    assert numbers_of([first, *rest]) == [0, 1, 2, 3, 4]


async def test_prefetch_bounds_unacknowledged_deliveries(broker_url):
    async with open_publisher(broker_url) as publisher:
        await publisher.publish(numbered_messages(20))
    async with open_consumer(broker_url, prefetch=7) as consumer:
        held = await take_exactly(consumer, 7)
        assert consumer.buffered_count == 0
        await consumer.acknowledge(held[:2])
        assert len(await take_exactly(consumer, 2)) == 2
        assert consumer.buffered_count == 0


async def test_stopped_consumer_hands_out_only_buffered_deliveries(broker_url):
    async with open_consumer(broker_url) as consumer, open_publisher(broker_url) as publisher:
        await publisher.publish(numbered_messages(3))
        (first,) = await consumer.take(1)
        await wait_until(lambda: consumer.buffered_count == 2)
        await consumer.stop()
        await publisher.publish([make_message("tests.one", b"99")])
        rest = await consumer.take(10)
        assert numbers_of(rest) == [1, 2]
        await consumer.acknowledge([first, *rest])
        assert await consumer.take(10) == []
    async with open_consumer(broker_url) as consumer:
        assert numbers_of(await consumer.take(10)) == [99]


async def test_stop_ends_a_waiting_take(broker_url):
    async with open_consumer(broker_url) as consumer, asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(consumer.take(1))
        await consumer.stop()
        assert await waiting == []


@pytest.mark.parametrize(
    "held", [(OptionalQueues, "search"), (DeliveryChannel, "consume_queue")], ids=lambda it: it[1]
)
async def test_stop_while_consuming_starts_again_leaves_nothing_consumed(
    broker_url, monkeypatch, held
):
    observer, reached, may_go_on = StateRecorder(), asyncio.Event(), asyncio.Event()
    original = getattr(*held)

    async def hold(*args, **kwargs):
        reached.set()
        await may_go_on.wait()
        return await original(*args, **kwargs)

    async with open_consumer(broker_url, observer) as consumer, raw_channel(broker_url) as channel:
        monkeypatch.setattr(*held, hold)
        await channel.queue_delete(QUEUE)
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            await reached.wait()
            tasks.create_task(consumer.stop())
            may_go_on.set()
            await observer.wait_for(lambda state: "gone" in state.problem)
            await observer.wait_for(lambda state: not state.problem)
        assert (await channel.queue_declare(QUEUE, passive=True)).consumer_count == 0
        assert await consumer.take(1) == []


async def test_a_binding_may_be_added_while_consuming_starts_again(broker_url, monkeypatch):
    observer, reached, may_go_on = StateRecorder(), asyncio.Event(), asyncio.Event()
    first, second = (Binding(QUEUE, EVENTS, f"finished.r-{number}.#") for number in (1, 2))
    original = DeliveryChannel.queue_bind

    async def hold(channel, queue, exchange, key, **kwargs):
        if key == first.binding_key:
            reached.set()
            await may_go_on.wait()
        return await original(channel, queue, exchange, key, **kwargs)

    async with (
        open_consumer(broker_url, observer) as consumer,
        open_publisher(broker_url, topology=CLIENT_TOPOLOGY) as publisher,
        raw_channel(broker_url) as channel,
    ):
        await consumer.bind(first)
        monkeypatch.setattr(DeliveryChannel, "queue_bind", hold)
        await channel.queue_delete(QUEUE)
        async with asyncio.timeout(30):
            await reached.wait()
            await consumer.bind(second)
            may_go_on.set()
            await observer.wait_for(lambda state: "gone" in state.problem)
            await observer.wait_for(lambda state: not state.problem)
        assert consumer.generation == 2
        keys = ["finished.r-1.s", "finished.r-2.s"]
        outcomes = await publisher.publish([make_message(key, exchange=EVENTS) for key in keys])
        assert [outcome.value for outcome in outcomes] == ["confirmed", "confirmed"]


async def test_consuming_continues_after_a_lost_connection(broker_url):
    observer = StateRecorder()
    async with (
        running_proxy(broker_url) as proxy,
        open_consumer(proxy.url, observer) as consumer,
        open_publisher(broker_url) as publisher,
    ):
        await publisher.publish(numbered_messages(3))
        old = await take_exactly(consumer, 2)
        await wait_until(lambda: consumer.buffered_count == 1)
        proxy.reset()
        await observer.wait_for(lambda state: state.generation == 2)
        new = await take_exactly(consumer, 3)
        assert numbers_of(new) == [0, 1, 2]
        assert {delivery.generation for delivery in new} == {2}
        await consumer.acknowledge(old)  # Left out: their tags now identify other deliveries.
        assert consumer._channel.unacked_count == 3
        await consumer.acknowledge(new)
        assert consumer._channel.unacked_count == 0


async def test_deleted_queue_is_declared_and_consumed_again(broker_url):
    observer = StateRecorder()
    async with (
        open_consumer(broker_url, observer) as consumer,
        open_publisher(broker_url) as publisher,
        raw_channel(broker_url) as channel,
    ):
        await channel.queue_delete(QUEUE)
        await observer.wait_for(lambda state: "gone" in state.problem)
        await observer.wait_for(lambda state: not state.problem)
        await publisher.publish(numbered_messages(1))
        assert numbers_of(await take_exactly(consumer, 1)) == [0]


async def test_missing_queue_is_an_error_at_the_start(broker_url):
    with pytest.raises(BrokerUnavailable, match="Consuming could not start"):
        async with open_consumer(broker_url, queues=(QUEUE, "missing")):
            pass


async def test_deliveries_of_a_partly_started_consumer_are_redelivered(broker_url):
    observer = StateRecorder()
    async with (
        raw_channel(broker_url) as channel,
        open_publisher(broker_url) as publisher,
        running_proxy(broker_url) as proxy,
    ):
        await channel.queue_declare("tests.extra", durable=True)
        async with open_consumer(proxy.url, observer, (QUEUE, "tests.extra")) as consumer:
            await channel.queue_delete("tests.extra")
            await observer.wait_for(lambda state: "could not start" in state.problem)
            await publisher.publish(numbered_messages(3))
            await observer.wait_for(lambda state: "could not start" in state.problem)
            await channel.queue_declare("tests.extra", durable=True)
            await observer.wait_for(lambda state: not state.problem)
            held = await take_exactly(consumer, 3)
            assert numbers_of(held) == [0, 1, 2]
            await consumer.acknowledge(held)
            assert consumer._channel.unacked_count == 0


async def test_exclusive_queue_is_bound_again_after_a_reconnect(broker_url):
    topology = client_topology("saga.client.1")
    observer = StateRecorder()
    async with (
        running_proxy(broker_url) as proxy,
        open_consumer(proxy.url, observer, ("saga.client.1",), topology=topology) as consumer,
        open_publisher(broker_url, topology=CLIENT_TOPOLOGY) as publisher,
    ):
        await consumer.bind(Binding("saga.client.1", EVENTS, "finished.r-1.#"))
        await consumer.bind(Binding("saga.client.1", EVENTS, "finished.r-2.#"))
        await consumer.unbind(Binding("saga.client.1", EVENTS, "finished.r-2.#"))
        proxy.reset()
        await observer.wait_for(lambda state: state.generation == 2)
        await wait_until(lambda: consumer.generation == 2 and not observer.states[-1].problem)
        keys = ["answer.saga.client.1", "finished.r-1.s", "finished.r-2.s"]
        outcomes = await publisher.publish([make_message(key, exchange=EVENTS) for key in keys])
        assert [outcome.value for outcome in outcomes] == ["confirmed", "confirmed", "unroutable"]
        found = await take_exactly(consumer, 2)
    assert [delivery.routing_key for delivery in found] == keys[:2]


def of(queue, count):
    return [make_message(queue, b"1", exchange="") for _ in range(count)]


async def test_each_queue_has_its_own_prefetch(broker_url):
    prefetch = {URGENT: 5, OTHER: 2}
    async with (
        open_publisher(broker_url, **TWO) as publisher,
        open_consumer(broker_url, None, (URGENT, OTHER), prefetch, **TWO) as consumer,
    ):
        await publisher.publish([*of(OTHER, 9), *of(URGENT, 9)])
        queues = [each.queue for each in await take_exactly(consumer, 7)]
        assert (queues.count(URGENT), queues.count(OTHER), consumer.buffered_count) == (5, 2, 0)
