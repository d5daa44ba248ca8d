"""What the model of the broker promises, RabbitMQ and the development broker promise as well."""

from contextlib import asynccontextmanager

import pytest

from saga_engine.protocol.message import Published
from saga_engine.protocol.topology import ENGINE
from simulation.broker_model import Broker, Consumer, Publisher
from simulation.faults import Faults, dice
from simulation.process import Process
from tests.broker import links
from tests.broker.links import QUEUE, TOPOLOGY, take
from tests.broker.messages import message


class Real:
    """The development broker, or RabbitMQ."""

    def __init__(self, url):
        self._url = url

    @asynccontextmanager
    async def publisher(self):
        async with links.publisher_to(self._url) as publisher:
            yield publisher

    @asynccontextmanager
    async def consumer(self, prefetch=100):
        async with links.consumer_of(self._url, prefetch=prefetch) as consumer:
            yield consumer


class Model:
    """The model; a consumer that is left loses its connection, as a real one does."""

    def __init__(self):
        self._broker = Broker(dice(0, "network"))
        self._broker.declare(ENGINE)
        self._broker.declare(TOPOLOGY)

    @asynccontextmanager
    async def publisher(self):
        yield Publisher(self._broker, self._process(), 5.0)

    @asynccontextmanager
    async def consumer(self, prefetch=100):
        consumer = Consumer(self._broker, self._process(), [QUEUE], prefetch)
        yield consumer
        consumer._leave()

    def _process(self):
        return Process("test", Faults(), dice(0, "network"))


@pytest.fixture(
    params=["model", "development", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)]
)
def broker(request):
    if request.param == "model":
        return Model()
    if request.param == "rabbitmq":
        return Real(request.getfixturevalue("rabbitmq_url"))
    return Real(request.getfixturevalue("development_broker").url)


def numbered(count):
    return [message("tests.one", str(number).encode()) for number in range(count)]


def bodies(deliveries):
    return sorted(int(delivery.body) for delivery in deliveries)


async def test_a_message_that_no_queue_takes_comes_back_if_it_is_mandatory(broker):
    batch = [message("tests.one"), message("nowhere"), message("nowhere", mandatory=False)]
    async with broker.consumer(), broker.publisher() as publisher:
        wanted = [Published.CONFIRMED, Published.RETURNED, Published.CONFIRMED]
        assert await publisher.publish(batch) == wanted


async def test_a_message_arrives_as_it_was_sent(broker):
    sent = message("tests.one", b'{"a": 1}', type="t", correlation_id="c", headers={"n": 1})
    async with broker.consumer() as consumer, broker.publisher() as publisher:
        await publisher.publish([sent])
        [found] = await take(consumer, 1)
    assert (found.queue, found.body, found.size) == (QUEUE, sent.body, len(sent.body))
    assert (found.message_id, found.type, found.correlation_id) == (sent.message_id, "t", "c")
    assert found.headers["n"] == 1
    assert not found.redelivered


async def test_what_is_not_settled_when_its_consumer_leaves_comes_back_redelivered(broker):
    async with broker.publisher() as publisher:
        async with broker.consumer() as consumer:
            await publisher.publish(numbered(5))
            held = await take(consumer, 5)
            kept = [each for each in held if int(each.body) % 2]
            await consumer.settle(kept)
            await consumer.settle(kept)  # again, which changes nothing
        async with broker.consumer() as consumer:
            again = await take(consumer, 3)
            assert bodies(again) == [0, 2, 4]
            assert all(each.redelivered for each in again)
            await consumer.settle(again)


async def test_the_prefetch_bounds_what_is_held(broker):
    async with broker.consumer(prefetch=3) as consumer, broker.publisher() as publisher:
        await publisher.publish(numbered(10))
        held = await take(consumer, 3)
        await consumer.settle(held[:2])
        assert len(await take(consumer, 2)) == 2
        await consumer.settle(held[2:])


async def test_each_of_two_consumers_gets_what_the_other_does_not(broker):
    async with broker.publisher() as publisher, broker.consumer(prefetch=5) as one:
        await publisher.publish(numbered(10))
        first = await take(one, 5)
        async with broker.consumer(prefetch=5) as other:
            second = await take(other, 5)
            await other.settle(second)
        await one.settle(first)
    assert bodies([*first, *second]) == list(range(10))


async def test_what_is_rejected_is_not_delivered_again(broker):
    async with broker.publisher() as publisher:
        async with broker.consumer() as consumer:
            await publisher.publish(numbered(2))
            held = sorted(await take(consumer, 2), key=lambda each: each.body)
            await consumer.reject(held[:1])
        async with broker.consumer() as consumer:
            assert bodies(await take(consumer, 1)) == [1]
