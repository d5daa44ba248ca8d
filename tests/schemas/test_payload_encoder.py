"""Events are written with the schema that they were stored with, and read with it again."""

from typing import Any

import pytest

from saga_engine.errors import InvalidInput, NotFound
from saga_engine.schemas.avro_codec import unframe
from saga_engine.schemas.payload_encoder import AvroEncoder, JsonEncoder, PayloadEncoder
from tests.kit.declared_schemas import declared_json, stored
from tests.kit.schema_pairs import INTEGER, TEXT, record

OLD = stored(declared_json(record({"a": TEXT}, "a")), 3)
NEW = stored(declared_json(record({"a": TEXT, "b": INTEGER}, "a"), 1), 5)
OTHER = stored(declared_json(record({"a": TEXT}, "a"), 2), 4)
AVRO = AvroEncoder([NEW, OTHER, OLD])


@pytest.mark.parametrize("encoder", [JsonEncoder(), AVRO])
def test_an_event_is_read_as_it_was_written(encoder):
    format_of: PayloadEncoder = encoder
    body = format_of.encode("order-placed", 1, 3, b'{"a": "x"}')
    assert format_of.decode(body) == {"a": "x"}
    assert "/" in format_of.content_type


@pytest.mark.parametrize(
    ("version", "schema_id", "used"), [(1, 3, 3), (1, 5, 5), (1, None, 5), (2, None, 4)]
)
def test_the_schema_of_an_event_is_chosen(version, schema_id, used):
    assert unframe(AVRO.encode("order-placed", version, schema_id, b'{"a": "x"}'))[0] == used


def test_an_event_without_a_registered_schema_is_named():
    with pytest.raises(NotFound, match="No schema of order-placed version 9 is registered"):
        AVRO.encode("order-placed", 9, None, b"{}")
    with pytest.raises(NotFound, match="Schema 9 is not known"):
        AVRO.encode("order-placed", 1, 9, b"{}")
    with pytest.raises(NotFound, match="Schema 9 is not known"):
        AVRO.decode(b"\x00\x00\x00\x00\x09")


def test_a_message_of_another_format_is_refused():
    decoders: list[Any] = [JsonEncoder().decode, AVRO.decode]
    for decode, body in zip(decoders, (b"\x00\x00\x00\x00\x03\x02x", b'{"a": 1}'), strict=True):
        with pytest.raises(InvalidInput):
            decode(body)
