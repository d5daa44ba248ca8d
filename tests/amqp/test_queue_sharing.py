"""Processes share queues out evenly, and no message waits for an owner that is gone or full."""

import asyncio
from contextlib import asynccontextmanager
from math import ceil
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saga_engine.amqp.consumer import Consumer
from saga_engine.amqp.queue_sharing import ShareChange, SharedQueues, plan_change
from saga_engine.protocol.topology import Queue, Topology
from tests.kit.connections import (
    open_connection,
    open_publisher,
    raw_channel,
    take_exactly,
    wait_until,
)
from tests.kit.messages import make_message
from tests.kit.proxy import running_proxy

NAMES = ("shared.0", "shared.1", "shared.2", "shared.3")
COUNTED = "counted"
TOPOLOGY = Topology(queues=(*map(Queue, NAMES), Queue(COUNTED)))
PREFETCH = 5
ROUNDS = 100
"""Rounds within which processes agree, with any queues at the start."""


def agree(owned: list[set[str]], queues: list[str], random: Random) -> None:
    """Let processes plan one after the other, or all at once, until they agree."""
    for _ in range(ROUNDS):
        changes = []
        at_once = random.random() < 0.5
        for index, mine in enumerate(owned):
            others = {
                queue: sum(queue in theirs for at, theirs in enumerate(owned) if at != index)
                for queue in queues
            }
            changes.append((mine, plan_change(others, mine, len(owned), random)))
            if not at_once:
                _apply(*changes.pop())
        for change in changes:
            _apply(*change)


def _apply(owned: set[str], change: ShareChange) -> None:
    owned.difference_update(change.released)
    owned.update(change.claimed)


@given(
    process_count=st.integers(1, 8),
    queue_count=st.integers(1, 32),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_each_queue_gets_one_owner_and_no_process_more_than_its_share(
    process_count, queue_count, seed, data
):
    queues = [f"q{number}" for number in range(queue_count)]
    any_queues = st.sets(st.sampled_from(queues))
    owned = [data.draw(any_queues) for _ in range(process_count)]
    agree(owned, queues, Random(seed))
    assert sorted(queue for each in owned for queue in each) == sorted(queues)
    assert max(map(len, owned)) <= ceil(queue_count / process_count)


def test_processes_that_agree_change_nothing():
    change = plan_change({"a": 0, "b": 1, "c": 0, "d": 1}, {"a", "c"}, 2, Random(1))
    assert change == ShareChange()


@asynccontextmanager
async def process(url, interval=0.05):
    """A process that shares the queues out with the others, and checks that at an interval."""
    shared = SharedQueues(names=NAMES, owner_prefetch=PREFETCH, counted_queue=COUNTED)
    async with (
        open_connection(
            url, topology=TOPOLOGY, broker_topology_check_interval=interval
        ) as connection,
        Consumer(connection, (COUNTED, *NAMES), prefetch=1, shared=shared) as consumer,
    ):
        yield consumer


def owned_by(consumer):
    return consumer._sharing.owned


def shared_evenly(*consumers):
    owned = [name for each in consumers for name in owned_by(each)]
    return sorted(owned) == sorted(NAMES) and len({len(owned_by(each)) for each in consumers}) == 1


async def send_to_each(url, count=1):
    """Send messages to each of the shared queues."""
    messages = [make_message(name, exchange="") for name in NAMES for _ in range(count)]
    async with open_publisher(url, topology=TOPOLOGY) as publisher:
        outcomes = await publisher.publish(messages)
    assert {outcome.value for outcome in outcomes} == {"confirmed"}


async def queues_of(consumer, count):
    deliveries = await take_exactly(consumer, count)
    await consumer.acknowledge(deliveries)
    return sorted(delivery.queue for delivery in deliveries)


async def test_one_process_owns_all_queues_from_the_start(broker_url):
    async with process(broker_url) as only:
        assert owned_by(only) == set(NAMES)


async def test_a_process_that_joins_gets_its_share_and_the_messages_of_its_queues(broker_url):
    async with process(broker_url) as first, process(broker_url) as second:
        await wait_until(lambda: shared_evenly(first, second))
        await send_to_each(broker_url, count=PREFETCH)
        for each in (first, second):
            expected = sorted(name for name in owned_by(each) for _ in range(PREFETCH))
            assert await queues_of(each, len(expected)) == expected


async def test_messages_of_a_process_that_is_gone_go_to_the_others_at_once(broker_url):
    """The check in which the other one claims the queues is far away."""
    async with (
        running_proxy(broker_url) as proxy,
        process(proxy.url) as dying,
        process(broker_url, interval=60) as other,
    ):
        await send_to_each(broker_url)
        await take_exactly(dying, 4)
        await proxy.refuse()
        proxy.reset()
        assert await queues_of(other, 4) == sorted(NAMES)
        assert owned_by(other) == set()


async def test_the_queues_of_a_process_that_is_gone_get_another_owner(broker_url):
    async with process(broker_url) as other:
        async with process(broker_url) as leaving:
            await wait_until(lambda: shared_evenly(leaving, other))
        await wait_until(lambda: owned_by(other) == set(NAMES))


async def test_what_an_owner_has_no_capacity_for_goes_to_a_standby(broker_url):
    async with process(broker_url) as busy, process(broker_url) as idle:
        await wait_until(lambda: shared_evenly(busy, idle))
        name = min(owned_by(busy))
        messages = [make_message(name, exchange="") for _ in range(PREFETCH + 2)]
        async with open_publisher(broker_url, topology=TOPOLOGY) as publisher:
            await publisher.publish(messages)
        assert await queues_of(idle, 1) == [name]


@pytest.mark.parametrize("missing", [COUNTED, NAMES[0]])
async def test_a_queue_that_is_gone_changes_no_owner(broker_url, missing):
    async with process(broker_url) as consumer, raw_channel(broker_url) as channel:
        await channel.queue_delete(missing)
        await wait_until(lambda: consumer.generation > 1 and owned_by(consumer) == set(NAMES))
        async with asyncio.timeout(30):
            await send_to_each(broker_url)
            assert await queues_of(consumer, 4) == sorted(NAMES)
