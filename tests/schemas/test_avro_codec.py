"""A value in Avro is read as the value that was written, in the frame of the usual registries."""

import io
import json
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

import avro.io
import avro.schema
import fastavro
import pytest
from pydantic import AwareDatetime, BaseModel, Field, create_model

from saga_engine.errors import ConfigurationError, InvalidInput
from saga_engine.payload.payload import PayloadType
from saga_engine.schemas.avro_codec import AvroCodec, frame, unframe
from tests.kit.schema_models import ORDER, Category, Order
from tests.kit.typed_values import TYPES

ORDERS = PayloadType(Order)
AMOUNT = Annotated[Decimal, Field(max_digits=10, decimal_places=2)]


def codec(python_type: Any) -> AvroCodec:
    return AvroCodec("order-placed", PayloadType(python_type).schema("serialization"))


def test_a_value_is_read_as_it_was_written():
    order = ORDERS.read(ORDER)
    orders = codec(Order)
    assert ORDERS.read(orders.decode(orders.encode(ORDERS.write(order)))) == order


@pytest.mark.parametrize(
    "change",
    [
        {"payment": {"kind": "card", "number": "1"}},
        {"size": None},
        {"size": "x"},
        {"size": 7},
        {"note": "", "first": None, "other_kind": None},
        {"extra": None, "seen": [], "lines": []},
        {"total": "0"},
        {"placed_at": "0001-01-02T00:00:00Z"},
    ],
)
def test_each_member_of_a_union_is_read_as_it_was_written(change):
    order = ORDERS.read(ORDER | change)
    orders = codec(Order)
    assert ORDERS.read(orders.decode(orders.encode(ORDERS.write(order)))) == order


@pytest.mark.parametrize(("python_type", "values"), TYPES, ids=lambda each: str(each)[:60])
def test_each_type_is_read_as_it_was_written(python_type, values):
    payload, its_codec = PayloadType(python_type), codec(python_type)
    for value in values:
        assert payload.read(its_codec.decode(its_codec.encode(payload.write(value)))) == value


def test_another_library_reads_it():
    written = codec(Category).encode({"name": "a", "parts": [], "parent": {"name": "b"}})
    schema = avro.schema.parse(json.dumps(codec(Category).schema))
    decoder: Any = avro.io.BinaryDecoder(io.BytesIO(written))
    read: Any = avro.io.DatumReader(schema).read(decoder)
    assert read == {
        "name": "a",
        "parts": [],
        "parent": {"name": "b", "parts": [], "parent": None},
    }


def test_a_reader_of_an_older_schema_resolves_a_newer_one():
    class Old(BaseModel):
        customer: str

    class New(BaseModel):
        customer: str
        currency: str = "EUR"
        note: str | None = None

    written = codec(Old).encode({"customer": "mara"})
    reader = fastavro.parse_schema(codec(New).schema)
    writer = fastavro.parse_schema(codec(Old).schema)
    read = fastavro.schemaless_reader(io.BytesIO(written), writer, reader)
    assert read == {"customer": "mara", "currency": "EUR", "note": None}


@pytest.mark.parametrize(
    "data",
    [
        {"total": "1"},
        {"total": None, "n": 1},
        {"total": "1.234", "n": 1},
        {"total": "12345678901", "n": 1},
        {"total": "1", "n": 2**63},
        {"total": "1", "n": "x"},
        "text",
    ],
)
def test_a_value_that_does_not_fit_is_refused(data):
    amount = {"type": "string", "format": "decimal", "maxDigits": 5, "decimalPlaces": 2}
    properties: Any = {"total": amount, "n": {"type": "integer"}}
    document: Any = {"type": "object", "properties": properties, "required": ["total", "n"]}
    with pytest.raises(InvalidInput, match="does not fit the Avro schema of paid"):
        AvroCodec("paid", document).encode(data)


@pytest.mark.parametrize("body", [b"", b"\xff", b"\x04a", b"\x02a\x00\x00\x00"])
def test_bytes_that_are_no_value_are_refused(body):
    with pytest.raises(InvalidInput, match="not an Avro value of order-placed"):
        codec(Category).decode(body)


def test_a_frame_is_byte_0_and_an_id_of_four_bytes():
    assert frame(258, b"body") == b"\x00\x00\x00\x01\x02body"
    assert unframe(frame(2**32 - 1, b"")) == (2**32 - 1, b"")
    for message in (b"", b"\x00\x00\x00\x01", b"\x01\x00\x00\x00\x01body", b'{"a": 1}'):
        with pytest.raises(InvalidInput, match="does not begin with byte 0"):
            unframe(message)


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fastavro", None)
    its_codec = codec(Category)
    assert its_codec.decode(b"\x02a\x00\x00") == {
        "name": "a",
        "parts": [],
        "parent": None,
    }
    with pytest.raises(ConfigurationError, match=r"Install saga-engine\[avro\]"):
        its_codec.encode({"name": "a"})


def test_a_decimal_number_is_bytes_of_its_digits():
    schema: Any = codec(Order).schema
    total = next(each for each in schema["fields"] if each["name"] == "total")
    assert total["type"] == {
        "type": "bytes",
        "logicalType": "decimal",
        "precision": 10,
        "scale": 2,
    }
    assert Decimal(ORDER["total"]) == ORDERS.read(ORDER).total


@pytest.mark.parametrize(
    ("union", "values"),
    [
        (date | int, [date(1970, 1, 6), 5]),
        (float | int, [2**53 + 1, 1.5]),
        (AwareDatetime | float, [5.5, datetime(2026, 1, 2, tzinfo=UTC)]),
        (AMOUNT | float, [1.5, Decimal("1.50")]),
        (Literal[1.5, 9007199254740993], [1.5, 9007199254740993]),
    ],
)
def test_each_value_of_a_union_keeps_its_type(union, values):
    model = create_model("Event", a=(union, ...))
    payload = PayloadType(model)
    codec = AvroCodec("event", payload.schema("serialization"))
    for each in values:
        data = payload.write(model.model_construct(a=each))
        read = codec.decode(codec.encode(data))
        assert json.dumps(read) == json.dumps(data)


def test_a_field_that_is_left_out_is_not_written_with_a_default_that_may_be_outdated():
    def event(default: int) -> Any:
        fee: Any = (int, Field(default, exclude_if=lambda value: value == default))
        return create_model("Event", fee=fee)

    old, new = PayloadType(event(5)), PayloadType(event(7))
    codec = AvroCodec("event", old.schema("serialization"))
    data = new.write(new.python_type())
    assert data == {}
    assert new.read(codec.decode(codec.encode(data))).fee == 7


def test_a_schema_that_fastavro_refuses_is_named(monkeypatch):
    def refuse(_):
        raise fastavro.schema.SchemaParseException

    monkeypatch.setattr(fastavro, "parse_schema", refuse)
    with pytest.raises(InvalidInput, match="has no Avro schema: fastavro raised SchemaParse"):
        codec(Order).encode({})
