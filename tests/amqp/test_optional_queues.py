"""A queue that another process may have made is consumed while it exists."""

from contextlib import asynccontextmanager

import pytest

from saga_engine.amqp.consumer import Consumer
from saga_engine.amqp.optional_queues import CHECKS_BETWEEN_SEARCHES, OptionalQueues
from saga_engine.errors import BrokerUnavailable
from tests.kit.connections import (
    QUEUE,
    StateRecorder,
    open_connection,
    open_publisher,
    raw_channel,
    take_exactly,
)
from tests.kit.messages import make_message, numbered_messages
from tests.kit.proxy import running_proxy

NAMES = ("optional.1", "optional.2")
CHANNEL_CLOSE = b"\x00\x14\x00\x28"
"""The numbers of class and method."""


@asynccontextmanager
async def consuming(url, observer=None):
    async with (
        open_connection(url, observer=observer, broker_topology_check_interval=0.05) as connection,
        Consumer(connection, [QUEUE], optional=NAMES) as consumer,
    ):
        yield consumer


async def next_queue(consumer):
    """The queue of the next delivery, which is acknowledged."""
    [delivery] = await take_exactly(consumer, 1)
    await consumer.acknowledge([delivery])
    return delivery.queue


async def test_an_optional_queue_is_consumed_once_it_exists_and_until_it_is_deleted(broker_url):
    observer = StateRecorder()
    async with (
        raw_channel(broker_url) as channel,
        consuming(broker_url, observer) as consumer,
        open_publisher(broker_url) as publisher,
    ):
        for name in NAMES:
            await channel.queue_declare(name, durable=True)
            await publisher.publish([make_message(name, exchange="")])
            assert await next_queue(consumer) == name
        await channel.queue_delete(NAMES[-1])
        await observer.wait_for(lambda state: "gone" in state.problem)
        await observer.wait_for(lambda state: not state.problem)
        await publisher.publish([make_message(NAMES[0], exchange="")])
        assert await next_queue(consumer) == NAMES[0]


@pytest.mark.rabbitmq
async def test_an_optional_queue_that_may_not_be_read_is_reported_and_stops_nothing(
    rabbitmq, rabbitmq_url
):
    vhost = rabbitmq_url.rpartition("/")[2]
    observer, user = StateRecorder(), "reader"
    await rabbitmq.rabbitmqctl("add_user", user, "opensesame")
    try:
        await rabbitmq.rabbitmqctl("set_permissions", "-p", vhost, user, ".*", ".*", r"^saga\..*")
        url = rabbitmq_url.replace("guest:guest@", f"{user}:opensesame@")
        async with (
            raw_channel(rabbitmq_url) as channel,
            open_publisher(rabbitmq_url) as publisher,
        ):
            await channel.queue_declare(NAMES[0], durable=True)
            async with consuming(url, observer) as consumer:
                await observer.wait_for(lambda state: f"{NAMES[0]!r} may not" in state.problem)
                await publisher.publish(numbered_messages(1))
                assert await next_queue(consumer) == QUEUE
                assert consumer.generation == 2  # the refusal has closed the first channel
    finally:
        await rabbitmq.rabbitmqctl("delete_user", user)


async def test_looking_for_a_queue_uses_up_no_delivery_of_its_messages(broker_url):
    async with (
        open_connection(broker_url) as connection,
        raw_channel(broker_url) as channel,
        open_publisher(broker_url) as publisher,
    ):
        await channel.queue_declare(NAMES[0], durable=True)
        await publisher.publish([make_message(NAMES[0], exchange="")])
        assert await OptionalQueues(connection, NAMES).search() == [NAMES[0]]
        assert (await channel.basic_get(NAMES[0])).redelivered is False


async def test_a_connection_on_which_a_channel_is_not_closed_in_time_is_not_used_again(broker_url):
    observer = StateRecorder()
    async with (
        raw_channel(broker_url) as channel,
        running_proxy(broker_url) as proxy,
        open_connection(proxy.url, observer=observer) as connection,
    ):
        await channel.queue_declare(NAMES[0], durable=True)

        def lose_answer_to_close(data):
            if CHANNEL_CLOSE in data:
                proxy.drop_server_data()
            return False

        proxy.is_cut_request = lose_answer_to_close
        with pytest.raises(BrokerUnavailable, match="does not respond"):
            await OptionalQueues(connection, NAMES[:1]).search()
        assert "does not respond" in observer.states[-1].problem


async def test_queues_are_looked_for_when_a_consumer_came_or_went_and_now_and_then(broker_url):
    async with open_connection(broker_url) as connection:
        optional = OptionalQueues(connection, NAMES)
        assert optional.should_search(consumers_changed=True)
        checks = range(CHECKS_BETWEEN_SEARCHES)
        assert sum(optional.should_search(consumers_changed=False) for _ in checks) == 1
