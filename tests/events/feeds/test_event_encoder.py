"""The data of an event is written as it is stored, in JSON or with its schema in Avro."""

from dataclasses import replace
from decimal import Decimal

import pytest

from saga_engine.errors import UnreadableEvent
from saga_engine.events.feeds.event_encoder import (
    AvroEncoder,
    JsonEncoder,
    NotEncodable,
    encoding_problem,
)
from saga_engine.schemas.known_schemas import WrittenSchemas
from saga_engine.settings import Settings
from tests.kit.avro_events import Placed, PlacedAbroad, avro_schemas, read_framed, register
from tests.kit.published_event import AT, LOG, PLACED

EVENT = replace(PLACED, schema_version=1)


def stored(data, metadata="{}"):
    """An event as it is read from its row."""
    return LOG.recorded(("order-o-1", 1, 0, 4711, AT, "order-placed", 1, data, metadata))


@pytest.fixture
def avro(feed_database):
    return AvroEncoder(WrittenSchemas(feed_database, Settings()))


async def test_json_is_what_is_stored_with_the_id_of_its_schema():
    event = stored('{"total": 1.10}', '{"schema_id": 7}')
    (encoded,) = await JsonEncoder().encode([event])
    assert encoded is not None
    assert (encoded.content_type, encoded.schema_id) == ("application/json", 7)
    assert encoded.body == b'{"total": 1.10}'


async def test_each_event_that_cannot_be_written_is_left_out_and_the_others_are_written(
    avro, feed_database
):
    await register(feed_database, Placed)
    broken = stored('{"customer": "mara", "total": 1e999}')
    assert await JsonEncoder().encode([broken]) == [None]
    encoded = await avro.encode([broken, EVENT, replace(EVENT, type="order-cancelled"), EVENT])
    assert [each is not None for each in encoded] == [False, True, False, True]
    assert encoding_problem(avro, EVENT, "retry") is None
    assert str(encoding_problem(avro, broken, "retry")).endswith("Discard the event.")


async def test_events_of_more_versions_than_are_kept_are_written(feed_database):
    """What was read for a batch is used in it, also if it is forgotten for another version."""
    for subject in ("order-placed", "order-moved"):
        await register(feed_database, Placed, subject=subject)
    avro = AvroEncoder(WrittenSchemas(feed_database, Settings(max_known_schemas=1)))
    encoded = await avro.encode([EVENT, replace(EVENT, type="order-moved"), EVENT])
    assert [each is not None for each in encoded] == [True, True, True]


async def test_a_schema_is_found_though_it_was_registered_after_the_last_event(avro, feed_database):
    assert await avro.encode([EVENT]) == [None]
    schema_id = await register(feed_database, Placed)
    (encoded,) = await avro.encode([EVENT])
    assert encoded is not None
    assert read_framed(encoded.body, await avro_schemas(feed_database)) == (
        schema_id,
        {"customer": "mara", "total": Decimal("12.50")},
    )


async def test_the_schema_of_another_event_is_not_used(avro, feed_database):
    """As after a copy of events from another database, whose ids were others."""
    other = await register(feed_database, Placed, subject="order-cancelled")
    own = await register(feed_database, Placed)
    (encoded,) = await avro.encode([replace(EVENT, schema_id=other)])
    assert encoded is not None
    assert encoded.schema_id == own


async def test_a_number_that_a_float_would_alter_is_not_written(avro, feed_database):
    await register(feed_database, Placed)
    with pytest.raises(UnreadableEvent):
        avro.encode_one(stored('{"customer": "mara", "total": 0.12345678901234567890}'))


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"customer": "mara", "total": "12.50", "more": 1}, "`more` is not in the schema"),
        ({"customer": 7, "total": "12.50"}, "`customer` is int in the place of str"),
        ({"customer": "mara", "total": "123456789"}, "`total` has more digits"),
        ({"customer": "mara", "total": "x"}, "`total` has another format"),
        ({"customer": "mara"}, "`total` is NoneType in the place of str"),
        ("text", "`customer` has another format"),
    ],
)
async def test_data_that_would_be_altered_is_not_written_and_its_field_is_named(
    avro, feed_database, data, field
):
    schema_id = await register(feed_database, Placed)
    event = replace(EVENT, data=data, schema_id=schema_id)
    assert await avro.encode([event]) == [None]
    with pytest.raises(NotEncodable) as raised:
        avro.encode_one(event)
    assert field in str(raised.value)
    assert f"It was stored with schema {schema_id}." in str(raised.value)


async def test_an_event_without_a_schema_is_written_with_the_oldest_that_it_fits(
    avro, feed_database
):
    first = await register(feed_database, Placed)
    second = await register(feed_database, PlacedAbroad)
    abroad = replace(EVENT, data={"customer": "ada", "total": "3.00", "currency": "DKK"})
    encoded = await avro.encode([EVENT, abroad])
    assert [each and each.schema_id for each in encoded] == [first, second]
