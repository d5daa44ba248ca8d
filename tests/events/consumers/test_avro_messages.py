"""Events in Avro take effect as those in JSON, with the schemas of the registry of their feed."""

from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from random import Random
from typing import Any

import pytest

from saga_engine.errors import StoreUnavailable
from saga_engine.events import from_kafka, from_stream
from saga_engine.events.consumers import consumer_actions
from saga_engine.events.consumers.avro_messages import AvroMessages, is_avro
from saga_engine.events.consumers.event_reader import EventReader
from saga_engine.events.consumers.failure_retry import FailureRetry
from saga_engine.events.consumers.received import Received
from saga_engine.events.readers.operator_audit import Operator
from saga_engine.protocol.unreadable import UnreadableMessage
from saga_engine.schemas.avro_codec import AvroCodec, frame
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.migrate import upgrade
from saga_engine.store.schema import EVENT_DATABASE
from tests.kit.avro_events import Placed, avro_feed, place, register
from tests.kit.consumers import (
    applying,
    attributes_of,
    billing_consumer,
    consumer_database,
    invoices,
    message_of,
    open_failures,
    order,
    registered_consumer,
    running_consumers,
    wait_for_invoices,
)
from tests.kit.declared_schemas import declared_type
from tests.kit.feeds import running_feeds, wait_for_feed
from tests.kit.kafka_feeds import running_kafka_feeds
from tests.kit.kafka_topics import new_topic
from tests.kit.streams import stream_url

NOW = datetime(2026, 11, 30, tzinfo=UTC)
OPERATOR = Operator("mara", "tested")
CODEC = AvroCodec("order-placed", declared_type(Placed).schema.writes)
BODY = CODEC.encode({"customer": "mara", "total": "12.50"})
_numbers = count(1)


def avro_order(number, schema_id=1, body=BODY, *, content_type="application/avro", **more):
    """The message of an order in Avro."""
    attributes = attributes_of(number, datacontenttype=content_type, **more)
    return message_of(attributes, body=frame(schema_id, body))


@pytest.fixture
async def billing(event_url):
    """The database of the consumer, which is that of the events."""
    async with registered_consumer(event_url) as database:
        yield database


@pytest.fixture
async def service_url(event_server):
    """The database of a service of its own."""
    name = f"billing_{next(_numbers)}"
    url = await event_server.create_database(name)
    await upgrade(url, EVENT_DATABASE)
    yield url
    await event_server.drop_database(name)


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/avro", True),
        ("Application/Avro; charset=binary", True),
        ("avro/binary", True),
        ("application/json", False),
        ("", False),
        (7, False),
    ],
)
def test_the_content_type_says_what_a_message_is(content_type, expected):
    assert is_avro(message_of({"datacontenttype": content_type}, {})) is expected
    assert not is_avro(message_of({}, {}))


async def test_messages_in_avro_and_in_json_take_effect_alike(billing):
    schema_id = await register(billing, Placed)
    async with applying(billing, billing_consumer()) as (batches, _):
        result = await batches.apply([avro_order(1, schema_id), order(2)])
    assert (result.applied, result.failures) == (2, [])
    assert await invoices(billing) == [("order-o-1", 1, "mara"), ("order-o-1", 2, "ada")]


async def test_a_message_of_an_unknown_schema_is_kept_until_the_schema_is_registered(billing):
    consumer = billing_consumer()
    async with applying(billing, consumer) as (batches, writer):
        result = await batches.apply([avro_order(1), avro_order(2, 2**32 - 1), order(3)])
        assert (result.applied, len(result.failures)) == (1, 2)
        (failure, _) = await open_failures(billing)
        assert failure.error == (
            "Its schema 1 is not in the registry of this consumer. Set"
            " SAGA_ENGINE_REGISTRY_DATABASE_URL to the database of the feed, or register the schema"
            " there; then retry the message."
        )
        assert await register(billing, Placed) == 1
        async with billing.transaction() as tx:
            await consumer_actions.retry(tx, "billing", OPERATOR)
        await writer.acquire()
        retry = FailureRetry(writer)
        while await retry.apply_next():
            pass
    assert [customer for _, _, customer in await invoices(billing)] == ["ada", "mara"]
    assert len(await open_failures(billing)) == 1


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"dataschema": "urn:uuid:0198c0de-0000-7000-8000-000000000009#schema/1"}, "dataschema"),
        ({"type": "order-cancelled"}, "is registered for another type of event"),
        ({"body": BODY + b"x"}, "more bytes than its value"),
        ({"body": b""}, "ends before its value does"),
        ({"body": b"\x02\x00" + BODY[5:]}, "NUL"),
    ],
)
async def test_a_message_that_its_schema_does_not_read_is_kept_with_a_sentence(
    billing, more, problem
):
    await register(billing, Placed)
    async with applying(billing, billing_consumer()) as (batches, _):
        await batches.apply([avro_order(1, **more), order(2)])
    (failure,) = await open_failures(billing)
    assert problem in failure.error
    assert await invoices(billing) == [("order-o-1", 2, "ada")]


async def test_no_bytes_raise_an_error(billing):
    await register(billing, Placed)
    rng = Random(3)
    avro = AvroMessages(billing, Settings(max_body_bytes=200))
    reader = EventReader(billing_consumer(), Settings(max_body_bytes=200), avro)
    seen = set()
    for number in range(1, 300):
        framed = bytearray(frame(1, BODY))
        for _ in range(rng.randrange(3)):
            at = rng.randrange(len(framed))
            framed[at : at + rng.randrange(2)] = rng.randbytes(rng.randrange(3))
        attributes = attributes_of(number, datacontenttype="application/avro")
        message = message_of(attributes, body=bytes(framed) * rng.choice([1, 1, 1, 30]))
        await reader.prepare([message])
        seen.add(type(reader.read(message, NOW)))
    assert seen == {Received, UnreadableMessage}


async def test_a_registry_that_is_unavailable_is_waited_for(billing, event_url):
    unavailable = Database(event_url, Settings(database_connect_timeout=0.5), EVENT_DATABASE)
    avro = AvroMessages(unavailable, Settings())
    await avro.prepare([order(1), message_of({"datacontenttype": "application/avro"}, {})], {"x"})
    nowhere = Database(
        "postgresql+asyncpg://u@127.0.0.1:1/x", Settings(database_connect_timeout=0.5)
    )
    with pytest.raises(StoreUnavailable):
        await AvroMessages(nowhere, Settings()).prepare([avro_order(1)], {"order-placed"})


async def test_a_service_reads_a_feed_in_avro_with_the_registry_of_the_feed(
    events, event_url, kafka, feed_database, service_url
):
    await register(feed_database, Placed)
    topic = new_topic()
    for number in range(3):
        placed = Placed(customer=f"c{number}", total=Decimal("12.50"))
        await place(events, f"order-{number}", placed)
    async with running_kafka_feeds(event_url, kafka.servers, [avro_feed("kafka", topic)]):
        await wait_for_feed(feed_database, await events.position(), "to-kafka")
    consumer = billing_consumer(from_kafka(topic))
    settings: Any = {"kafka_bootstrap_servers": kafka.servers}
    async with consumer_database(service_url) as database:
        async with running_consumers(
            service_url, [consumer], registry_database_url=event_url, **settings
        ):
            await wait_for_invoices(database, 3)
        assert {each[2] for each in await invoices(database)} == {"c0", "c1", "c2"}


@pytest.mark.rabbitmq
async def test_a_consumer_reads_a_stream_in_avro(
    events, event_url, stream_database, rabbitmq, rabbitmq_url
):
    await register(stream_database, Placed)
    position = await place(events, "order-1", Placed(customer="mara", total=Decimal("12.50")))
    address = stream_url(rabbitmq, rabbitmq_url)
    feed = avro_feed("stream", "orders", name="orders")
    async with running_feeds(event_url, rabbitmq_url, [feed], broker_stream_url=address):
        await wait_for_feed(stream_database, position)
    async with consumer_database(event_url) as database:
        async with running_consumers(
            event_url,
            [billing_consumer(from_stream("orders"))],
            broker_url=rabbitmq_url,
            broker_stream_url=address,
        ):
            await wait_for_invoices(database, 1)
        assert await invoices(database) == [("order-1", 1, "mara")]
