"""The model of RabbitMQ behaves like RabbitMQ and the development broker."""

from contextlib import asynccontextmanager

import pytest

from saga_engine.protocol.message import PublishOutcome
from saga_engine.protocol.topology import ENGINE_TOPOLOGY
from simulation.broker_model import BrokerModel, PublisherModel
from simulation.consumer_model import ConsumedQueues, ConsumerModel
from simulation.faults import FaultInjector, seeded_random
from simulation.process import SimulatedProcess
from tests.kit import connections
from tests.kit.connections import QUEUE, TOPOLOGY, take_exactly
from tests.kit.messages import make_message


class Real:
    """The development broker, or RabbitMQ."""

    def __init__(self, url):
        self._url = url

    @asynccontextmanager
    async def publisher(self):
        async with connections.open_publisher(self._url) as publisher:
            yield publisher

    @asynccontextmanager
    async def consumer(self, prefetch=100):
        async with connections.open_consumer(self._url, prefetch=prefetch) as consumer:
            yield consumer


class Model:
    """The model; a consumer loses its connection at the end of its block, as a real one does."""

    def __init__(self):
        self._broker = BrokerModel(seeded_random(0, "network"))
        self._broker.declare(ENGINE_TOPOLOGY)
        self._broker.declare(TOPOLOGY)

    @asynccontextmanager
    async def publisher(self):
        yield PublisherModel(self._broker, self._process(), 5.0)

    @asynccontextmanager
    async def consumer(self, prefetch=100):
        consumer = ConsumerModel(
            self._broker, self._process(), ConsumedQueues(names=[QUEUE], prefetch=prefetch)
        )
        yield consumer
        consumer._close()

    def _process(self):
        return SimulatedProcess("test", FaultInjector(), seeded_random(0, "network"))


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
    return [make_message("tests.one", str(number).encode()) for number in range(count)]


def bodies(deliveries):
    return sorted(int(delivery.body) for delivery in deliveries)


async def test_an_unroutable_mandatory_message_is_returned(broker):
    batch = [
        make_message("tests.one"),
        make_message("nowhere"),
        make_message("nowhere", mandatory=False),
    ]
    async with broker.consumer(), broker.publisher() as publisher:
        wanted = [PublishOutcome.CONFIRMED, PublishOutcome.UNROUTABLE, PublishOutcome.CONFIRMED]
        assert await publisher.publish(batch) == wanted


async def test_a_message_is_delivered_unchanged(broker):
    sent = make_message("tests.one", b'{"a": 1}', type="t", correlation_id="c", headers={"n": 1})
    async with broker.consumer() as consumer, broker.publisher() as publisher:
        await publisher.publish([sent])
        [found] = await take_exactly(consumer, 1)
    assert (found.queue, found.body, found.body_size) == (QUEUE, sent.body, len(sent.body))
    assert (found.message_id, found.type, found.correlation_id) == (sent.message_id, "t", "c")
    assert found.headers["n"] == 1
    assert not found.redelivered


async def test_unacknowledged_messages_are_redelivered_after_a_disconnect(broker):
    async with broker.publisher() as publisher:
        async with broker.consumer() as consumer:
            await publisher.publish(numbered(5))
            held = await take_exactly(consumer, 5)
            kept = [each for each in held if int(each.body) % 2]
            await consumer.acknowledge(kept)
            await consumer.acknowledge(kept)  # A second time, which changes nothing.
        async with broker.consumer() as consumer:
            again = await take_exactly(consumer, 3)
            assert bodies(again) == [0, 2, 4]
            assert all(each.redelivered for each in again)
            await consumer.acknowledge(again)


async def test_the_prefetch_limits_unacknowledged_messages(broker):
    async with broker.consumer(prefetch=3) as consumer, broker.publisher() as publisher:
        await publisher.publish(numbered(10))
        held = await take_exactly(consumer, 3)
        await consumer.acknowledge(held[:2])
        assert len(await take_exactly(consumer, 2)) == 2
        await consumer.acknowledge(held[2:])


async def test_two_consumers_share_the_messages(broker):
    async with broker.publisher() as publisher, broker.consumer(prefetch=5) as one:
        await publisher.publish(numbered(10))
        first = await take_exactly(one, 5)
        async with broker.consumer(prefetch=5) as other:
            second = await take_exactly(other, 5)
            await other.acknowledge(second)
        await one.acknowledge(first)
    assert bodies([*first, *second]) == list(range(10))


async def test_a_rejected_message_is_not_redelivered(broker):
    async with broker.publisher() as publisher:
        async with broker.consumer() as consumer:
            await publisher.publish(numbered(2))
            held = sorted(await take_exactly(consumer, 2), key=lambda each: each.body)
            await consumer.reject(held[:1])
        async with broker.consumer() as consumer:
            assert bodies(await take_exactly(consumer, 1)) == [1]
