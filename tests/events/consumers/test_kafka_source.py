"""Events of a topic take effect once and in order, from the offsets in the consumer's database."""

import asyncio
import re

import pytest
from confluent_kafka import Producer

from saga_engine.embedded.server_process import free_port
from saga_engine.errors import BrokerUnavailable, ConfigurationError
from saga_engine.events import from_kafka
from saga_engine.events.consumers import consumer_actions
from saga_engine.events.consumers.kafka_source import KafkaSource, headers_of
from saga_engine.events.readers.operator_audit import Operator
from saga_engine.settings import Settings
from saga_engine.telemetry.events import ConsumerMessageKept
from tests.kit.consumer_sources import TopicUnderTest
from tests.kit.consumers import (
    billing_consumer,
    check_effects,
    consumer_database,
    invoices,
    open_failures,
    running_consumers,
    stored_partitions,
    wait_for_invoices,
)
from tests.kit.feeds import every_event, wait_for_feed
from tests.kit.kafka_feeds import PARTITIONS, TO_KAFKA, kafka_feed, running_kafka_feeds
from tests.kit.kafka_topics import new_topic
from tests.kit.programs import wait_until_true
from tests.kit.projections import append_orders
from tests.kit.proxy import running_proxy


@pytest.fixture
async def billing(event_url):
    async with consumer_database(event_url) as database:
        yield database


@pytest.fixture
def published(events, event_url, kafka, feed_database):
    """Append events, and publish all to a topic."""

    async def publish(topic, number, seed=0):
        await append_orders(events, number, seed=seed)
        async with running_kafka_feeds(event_url, kafka.servers, [kafka_feed(topic)]):
            await wait_for_feed(feed_database, await events.position(), TO_KAFKA.name)
        return await every_event(events)

    return publish


async def test_every_event_of_a_topic_takes_effect_once_and_in_order(
    event_url, kafka, billing, published
):
    topic = new_topic()
    consumer = billing_consumer(from_kafka(topic))
    settings = {"kafka_bootstrap_servers": kafka.servers}
    expected = []
    for number in range(2):
        expected = await published(topic, 3, seed=number)
        async with running_consumers(event_url, [consumer], **settings):
            await wait_for_invoices(billing, len(expected))
    await check_effects(billing, expected)
    stored = await stored_partitions(billing)
    assert [each.source for each in stored] == [f"kafka {topic}"] * PARTITIONS
    assert sum(each.duplicates for each in stored) == 0
    assert sum(each.next_offset or 0 for each in stored) == len(expected)


async def test_messages_whose_reading_takes_long_take_effect_in_their_order(
    event_url, kafka, billing
):
    """What was taken, and not read in the time of a batch, is applied after it."""
    source = TopicUnderTest(kafka.servers)
    await source.create()
    await source.publish(*range(1, 301))
    consumer, slow = billing_consumer(source.options), {"projection_batch_seconds": 0.001}
    async with running_consumers(event_url, [consumer], **source.settings, **slow):
        await wait_for_invoices(billing, 300)
    assert [version for _, version, _ in await invoices(billing)] == [*range(1, 301)]
    assert [each.duplicates for each in await stored_partitions(billing)] == [0]


async def test_a_record_that_cannot_be_read_is_kept(event_url, kafka, billing, published):
    topic = new_topic()
    expected = await published(topic, 1)
    producer = Producer({"bootstrap.servers": kafka.servers})
    producer.produce(topic, b"\xff", headers=[("ce_id", b"\xff")], partition=0)
    await asyncio.to_thread(producer.flush)
    consumer = billing_consumer(from_kafka(topic))
    async with running_consumers(
        event_url, [consumer], kafka_bootstrap_servers=kafka.servers
    ) as emitted:
        await wait_for_invoices(billing, len(expected))
        await emitted.wait_for(ConsumerMessageKept)
    (failure,) = await open_failures(billing)
    assert (failure.kind, failure.partition) == ("unreadable", 0)


async def test_an_idle_partition_that_is_rewound_is_consumed_from_there(
    event_url, kafka, billing, published
):
    topic = new_topic()
    expected = await published(topic, 1)
    consumer = billing_consumer(from_kafka(topic))
    async with running_consumers(event_url, [consumer], kafka_bootstrap_servers=kafka.servers):
        await wait_for_invoices(billing, len(expected))
        [rewound, *_] = [each for each in await stored_partitions(billing) if each.next_offset]
        async with billing.transaction() as tx:
            await consumer_actions.rewind(tx, "billing", rewound.partition, 0, Operator("mara"))

        async def consumed_again() -> bool:
            stored = (await stored_partitions(billing))[rewound.partition]
            return stored.duplicates == stored.next_offset == rewound.next_offset

        await wait_until_true(consumed_again, patience=20.0)
    await check_effects(billing, expected)


class UnreadableHeaders:
    """A message of librdkafka's client that has the name of a header which is not UTF-8."""

    def headers(self):
        raise SystemError("returned a result with an exception set")


def test_a_header_whose_name_is_not_utf_8_is_a_problem_of_its_message():
    headers, problem = headers_of(UnreadableHeaders())
    assert headers == ()
    assert problem == "Its headers cannot be read: the name of one is not UTF-8."


def test_settings_that_no_client_accepts_are_named():
    settings = Settings(
        kafka_bootstrap_servers="127.0.0.1:1",
        kafka_security_protocol="ssl",
        kafka_ca_file="/missing",
    )
    with pytest.raises(ConfigurationError, match="does not accept the settings of Kafka"):
        KafkaSource("billing", from_kafka("orders"), settings)


async def test_a_topic_that_is_missing_is_named(event_url, kafka, billing):
    consumer = billing_consumer(from_kafka("missing"))
    with pytest.raises(BrokerUnavailable, match=r"Topic 'missing' of Kafka at .* cannot be read"):
        async with running_consumers(event_url, [consumer], kafka_bootstrap_servers=kafka.servers):
            pass


async def test_a_right_that_is_missing_is_named(kafka):
    """The server knows no rights: the proxy makes a refusal of its "unknown topic"."""
    unknown, refused = (code.to_bytes(2) for code in (3, 29))
    answer = re.compile(unknown + b"(.{1,2}secret)", re.DOTALL)  # the code, a length, the name
    async with running_proxy(f"tcp://{kafka.servers}") as proxy:
        address = kafka.addressed(proxy.url)
        proxy.from_server.rewrite = lambda data: answer.sub(refused + rb"\1", address(data))
        settings = Settings(kafka_bootstrap_servers=proxy.url.removeprefix("tcp://"))
        source = KafkaSource("billing", from_kafka("secret"), settings)
        with pytest.raises(BrokerUnavailable, match=r"'secret': .* needs DESCRIBE and READ"):
            await source.partition_count()
        await source.close()


async def test_what_fails_at_the_start_names_the_server(kafka):
    port = free_port()
    for servers, sentence in (
        (kafka.servers, f"^Topic 'no-topic' of Kafka at {kafka.servers} cannot be read: "),
        (f"localhost:{port}", f"^Kafka is unavailable: localhost:{port}/.*Connection refused"),
    ):
        settings = Settings(kafka_bootstrap_servers=servers, kafka_request_timeout=2.0)
        source = KafkaSource("billing", from_kafka("no-topic"), settings)
        with pytest.raises(BrokerUnavailable, match=sentence):
            await source.partition_count()
        await source.close()
