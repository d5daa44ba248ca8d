"""A producer confirms what it has delivered, in order, and fails as a whole."""

from threading import Event
from typing import Any

import pytest

from saga_engine.events.feeds.event_encoder import JsonEncoder
from saga_engine.events.feeds.kafka_message import encode_message
from saga_engine.events.feeds.kafka_producer import KafkaProducer
from saga_engine.protocol.message import PublishOutcome
from saga_engine.settings import Settings
from tests.kit.kafka_feeds import FAST, PARTITIONS, kafka_options, some_events
from tests.kit.kafka_topics import (
    MockCluster,
    add_partitions,
    check_records,
    create_topic,
    new_topic,
    read_topic,
)
from tests.kit.published_event import LOG

SECONDS = 20.0
CONFIRMED, UNPUBLISHABLE = PublishOutcome.CONFIRMED, PublishOutcome.UNPUBLISHABLE


def messages(events):
    return [encode_message(each, JsonEncoder().encode_one(each), LOG.id) for each in events]


def producer(
    servers: str,
    topic: str,
    *,
    closing: Event | None = None,
    is_single: bool = False,
    **declared: Any,
) -> KafkaProducer:
    settings = Settings(**{"kafka_bootstrap_servers": servers, **FAST})
    options = kafka_options(topic, compression="none", **declared)
    closing = closing or Event()
    limit = options.max_message_bytes
    return KafkaProducer(options, limit, settings, closing, is_single=is_single)


@pytest.fixture(params=["server", "mock"])
def server(request):
    """The server of the other tests; None: the three brokers that librdkafka's own tests use."""
    # Not in `made_topic`: an event loop runs there, and the server of the session needs its own.
    return request.getfixturevalue("kafka") if request.param == "server" else None


@pytest.fixture
async def made_topic(server):
    """The servers and a topic, of two implementations."""
    topic = new_topic()
    if server:
        await create_topic(server.servers, topic)
        yield server.servers, topic
    else:
        cluster = MockCluster()
        await cluster.create_topic(topic)
        yield cluster.servers, topic
        cluster.close()


async def test_what_is_confirmed_can_be_read_in_order(made_topic):
    events = some_events(1_000)
    made = producer(*made_topic)
    for first in (0, 500):
        outcomes = made.publish(messages(events[first : first + 500]), SECONDS)
        assert outcomes == [CONFIRMED] * 500
    assert made.failure is None
    made.close()
    records = await read_topic(*made_topic)
    check_records(records, events)
    assert len(records) == len(events)


async def test_a_stream_keeps_its_partition_when_partitions_are_added(kafka):
    topic, events = new_topic(), some_events(200)
    await create_topic(kafka.servers, topic)
    for part in (events[:100], events[100:]):
        made = producer(kafka.servers, topic)
        assert made.publish(messages(part), SECONDS) == [CONFIRMED] * 100
        made.close()
        if part[0] is events[0]:
            await add_partitions(kafka.servers, topic, PARTITIONS + 5)
    check_records(await read_topic(kafka.servers, topic), events)


async def test_an_event_that_the_server_finds_too_large_is_found_and_no_later_one_overtakes(kafka):
    topic = new_topic()
    await create_topic(kafka.servers, topic, partitions=1, max_message_bytes=2_000)
    events = [*some_events(10), *some_events(1, after=10, size=5_000), *some_events(30, after=11)]
    together = producer(kafka.servers, topic, partitions=1)
    outcomes = together.publish(messages(events), SECONDS)
    assert set(outcomes) == {PublishOutcome.UNKNOWN}
    assert together.was_too_large
    single = producer(kafka.servers, topic, is_single=True, partitions=1)
    outcomes = single.publish(messages(events), SECONDS)
    assert outcomes[:11] == [CONFIRMED] * 10 + [UNPUBLISHABLE]
    assert set(outcomes[11:]) == {PublishOutcome.UNKNOWN}
    check_records(await read_topic(kafka.servers, topic), events[:10])


def test_an_unreachable_server_costs_the_given_time_and_names_the_reason():
    made = producer("127.0.0.1:1", "orders")
    assert made.publish(messages(some_events(20)), 0.5) == [PublishOutcome.UNKNOWN] * 20
    assert made.failure is not None
    assert "Connection refused" in made.failure.str()


@pytest.mark.timeout(20)
def test_a_process_that_stops_does_not_wait_for_kafka():
    closing = Event()
    closing.set()
    made = producer("127.0.0.1:1", "orders", closing=closing)
    assert made.publish(messages(some_events(20)), 3600) == [PublishOutcome.UNKNOWN] * 20
