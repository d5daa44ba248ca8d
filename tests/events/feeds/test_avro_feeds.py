"""A feed in Avro publishes each event with the schema that it was stored with."""

from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel

from saga_engine.errors import DefinitionError
from saga_engine.events import Aggregate, Feed
from saga_engine.events.feeds import feed_actions, feed_rules
from saga_engine.events.feeds.feed import Sink
from saga_engine.events.feeds.feed_table import FeedKey
from saga_engine.events.readers.operator_audit import Operator
from saga_engine.telemetry.events import FeedStopped
from tests.kit.avro_events import (
    Placed,
    PlacedAbroad,
    avro_feed,
    avro_schemas,
    place,
    read_framed,
    register,
)
from tests.kit.feeds import every_event, wait_for_feed
from tests.kit.kafka_feeds import running_kafka_feeds
from tests.kit.kafka_topics import new_topic, read_topic
from tests.kit.projections import append_one, placed
from tests.kit.streams import stored_messages

OPERATOR = Operator("mara", "tested")
TO_KAFKA = FeedKey("to-kafka", Sink.KAFKA)
MARA, ADA = (
    Placed(customer="mara", total=Decimal("12.50")),
    Placed(customer="ada", total=Decimal(3)),
)


async def test_each_message_of_a_topic_has_the_frame_of_its_schema(
    events, event_url, kafka, feed_database
):
    topic = new_topic()
    first = await register(feed_database, Placed)
    await place(events, "order-1", MARA)
    second = await register(feed_database, PlacedAbroad)
    await place(events, "order-1", PlacedAbroad(customer="ada", total=Decimal(3), currency="DKK"))
    await place(events, "order-1", ADA)
    async with running_kafka_feeds(event_url, kafka.servers, [avro_feed("kafka", topic)]):
        await wait_for_feed(feed_database, await events.position(), "to-kafka")
    records = await read_topic(kafka.servers, topic)
    schemas = await avro_schemas(feed_database)
    assert [read_framed(each.value, schemas) for each in records] == [
        (first, {"customer": "mara", "total": Decimal("12.50")}),
        (second, {"customer": "ada", "total": Decimal("3.00"), "currency": "DKK"}),
        (first, {"customer": "ada", "total": Decimal("3.00")}),
    ]
    for record, event in zip(records, await every_event(events), strict=True):
        headers = record.headers
        assert headers["content-type"] == "application/avro"
        assert headers["ce_dataschema"] == f"{headers['ce_source']}#schema/{event.schema_id}"
        assert (headers["ce_id"], headers["ce_type"]) == (str(event.id), "order-placed")


@pytest.mark.rabbitmq
async def test_each_message_of_a_stream_has_the_frame_of_its_schema(
    events, rabbitmq_url, stream_database, run_feed
):
    schema_id = await register(stream_database, Placed)
    position = await place(events, "order-1", MARA)
    async with run_feed(avro_feed("stream", "orders", name="orders")):
        await wait_for_feed(stream_database, position)
    ((_, message),) = (await stored_messages(rabbitmq_url, "orders", count=1)).messages
    assert read_framed(message.body, await avro_schemas(stream_database)) == (
        schema_id,
        {"customer": "mara", "total": Decimal("12.50")},
    )
    properties: Any = message.header.properties
    assert properties.content_type == "application/avro"
    assert properties.headers["cloudEvents_dataschema"].endswith(f"#schema/{schema_id}")


async def test_an_event_without_a_registered_schema_stops_the_feed_until_it_is_registered(
    events, event_url, kafka, feed_database
):
    topic = new_topic()
    await place(events, "order-1", MARA)
    feed = avro_feed("kafka", topic)
    async with running_kafka_feeds(event_url, kafka.servers, [feed]) as emitted:
        (stopped,) = await emitted.wait_for(FeedStopped)
        assert stopped.problem == (
            "No schema of order-placed version 1 is registered. Register it: `saga-engine schemas"
            f" register MODULE`, then run `{TO_KAFKA.retry_command}`; or discard the event."
        )
        schema_id = await register(feed_database, Placed)
        async with feed_database.transaction() as tx:
            await feed_actions.retry(tx, TO_KAFKA, OPERATOR)
        await wait_for_feed(feed_database, await events.position(), "to-kafka")
    (record,) = await read_topic(kafka.servers, topic)
    assert read_framed(record.value, await avro_schemas(feed_database))[0] == schema_id
    assert record.headers["ce_dataschema"].endswith(f"#schema/{schema_id}")


async def test_a_repeated_message_is_the_same_though_a_schema_was_registered_since(
    events, event_url, kafka, feed_database
):
    """Events that were stored without a schema are written with the oldest that fits them."""
    topic = new_topic()
    await place(events, "order-1", MARA)  # no schema is registered
    await place(events, "order-1", PlacedAbroad(customer="ada", total=Decimal(3)))
    await register(feed_database, Placed)
    await register(feed_database, PlacedAbroad)
    later = await place(events, "order-1", MARA)
    for _ in range(2):
        async with running_kafka_feeds(event_url, kafka.servers, [avro_feed("kafka", topic)]):
            await wait_for_feed(feed_database, later, "to-kafka")
        async with feed_database.transaction() as tx:
            await feed_actions.rewind(tx, TO_KAFKA, 0, OPERATOR)

        class Another(PlacedAbroad):
            note: str = ""

        await register(feed_database, Another)
    records = [(each.headers, each.value) for each in await read_topic(kafka.servers, topic)]
    assert records[:3] == records[3:]
    schemas = await avro_schemas(feed_database)
    assert [read_framed(value, schemas)[0] for _, value in records[:3]] == [1, 2, 1]


async def test_data_that_does_not_fit_its_schema_stops_the_feed_and_names_the_field(
    events, event_url, kafka, feed_database
):
    await register(feed_database, Placed)
    await append_one(events, "order-1", placed(total="12.505"))
    feed = avro_feed("kafka", new_topic())
    async with running_kafka_feeds(event_url, kafka.servers, [feed]) as emitted:
        (stopped,) = await emitted.wait_for(FeedStopped)
    assert "A value does not fit the Avro schema of order-placed: `" in stopped.problem
    assert "none that is registered of order-placed version 1 fits it" in stopped.problem
    assert "12.505" not in stopped.problem


def test_a_feed_in_avro_names_an_event_that_avro_cannot_write():
    class Listed(BaseModel):
        items: list[int] | list[str]

    class State(BaseModel):
        pass

    orders = Aggregate("order", state=State)

    @orders.event("order-listed")
    def listed(order: State, event: Listed) -> State:
        return order

    feed = Feed("orders", types=[Listed])
    feed.to_kafka("orders", partitions=1, encoding="avro")
    with pytest.raises(
        DefinitionError, match="order-listed has no Avro schema: `items` is a union"
    ):
        feed_rules.check([feed])


@pytest.mark.parametrize("sink", ["kafka", "stream"])
def test_a_feed_in_avro_says_what_it_cannot_publish(sink):
    def rules(encoding="avro", **selection):
        feed = Feed("orders", **selection)
        if sink == "kafka":
            feed.to_kafka("orders", partitions=1, encoding=encoding)
        else:
            feed.to_stream("orders", encoding=encoding)
        return feed_rules.check([feed])

    rules(streams=["order-*"])
    rules(types=["order-placed"])
    rules(encoding="json")
    with pytest.raises(DefinitionError, match=r"has encoding='xml'\. Use 'json' or 'avro'"):
        rules(encoding="xml")
    for selection in ({}, {"streams": ["run-*"]}, {"types": ["run_started"]}):
        with pytest.raises(DefinitionError, match="events of runs in Avro, which have no schema"):
            rules(**selection)
