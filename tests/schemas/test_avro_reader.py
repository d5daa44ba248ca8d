"""No bytes in the place of an Avro value cost more than the limits allow, or break a reader."""

import tracemalloc
from random import Random
from typing import Any

import orjson
import pytest
from pydantic import BaseModel

from saga_engine.errors import InvalidInput
from saga_engine.payload.limits import BodyLimits
from saga_engine.payload.payload import PayloadType
from saga_engine.schemas.avro_codec import AvroCodec
from saga_engine.schemas.avro_reader import AvroReader, MalformedAvro
from tests.kit.schema_models import ORDER, Category, Order


class Nothing(BaseModel):
    pass


class Nested(BaseModel):
    parts: list["Nested"] = []


class Several(BaseModel):
    nothings: list[Nothing]
    maps: dict[str, None]
    anything: Any


def codec(python_type: Any) -> AvroCodec:
    return AvroCodec("order-placed", PayloadType(python_type).schema("serialization"))


ORDERS = PayloadType(Order)
BODY = codec(Order).encode(ORDERS.write(ORDERS.read(ORDER)))


def number(value: int) -> bytes:
    """A number as Avro writes it."""
    value = (value << 1) ^ (value >> 63)
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])


@pytest.mark.parametrize("value", [0, -1, 1, 63, 64, 2**63 - 1, -(2**63)])
def test_a_number_has_64_bits(value):
    assert AvroReader(number(value), BodyLimits()).integer() == value


@pytest.mark.parametrize("body", [b"\xff" * 9 + b"\x02", b"\xff" * 100, b"\x80"])
def test_a_longer_number_is_refused(body):
    with pytest.raises(MalformedAvro):
        AvroReader(body, BodyLimits()).integer()


@pytest.mark.parametrize(
    ("python_type", "body", "problem"),
    [
        (list[Nothing], number(10**12), "holds more than 10000 values"),
        (list[None], number(-(10**12)) + number(1), "holds more than 10000 values"),
        (list[None], number(-(2**63)) + number(1), "holds more than 10000 values"),
        (dict[str, None], number(10**12), "ends before"),
        (Nested, number(1) * 100_000, "nests deeper than 64 levels"),
        (str, number(2**40), "ends before"),
        (str, number(-1) + b"x" * 10, "ends before"),
        (str, number(1) + b"\xff", "a text is not UTF-8"),
        (bool, b"\x02", "neither 0 nor 1"),
        (float, b"\x00\x00\x00\x00\x00\x00\xf8\x7f", "not finite"),
        (int | None, number(2), "no member"),
        (int | None, number(-1), "no member"),
        (Any, number(3) + b"NaN", "not finite"),
        (Any, number(5) + b"1e999", "not finite"),
        (Any, number(100_000) + b"[" * 100_000, "RecursionError"),
        (int, number(1) + b"\x00", "more bytes than its value"),
    ],
)
def test_a_hostile_body_is_refused_with_a_sentence(python_type, body, problem):
    with pytest.raises(InvalidInput, match=problem):
        codec(python_type).decode(body)


def test_a_decimal_number_has_no_more_digits_than_its_schema():
    orders = codec(Order)
    for written in (number(5000) + b"\x7f" * 5000, number(9) + b"\x7f" * 9):
        with pytest.raises(InvalidInput, match="has more digits than its schema allows"):
            orders.decode(body_with_total(written))
    padded = number(8) + (-1250).to_bytes(8, "big", signed=True)
    data: Any = orders.decode(body_with_total(padded))
    assert data["total"] == "-12.50"


def body_with_total(written: bytes) -> bytes:
    """The body of an order with other bytes in the place of its total."""
    total = number(4) + (-1234567890).to_bytes(4, "big", signed=True)
    assert BODY.count(total) == 1
    return BODY.replace(total, written)


def test_any_bytes_give_a_value_within_the_limits_or_a_sentence():
    rng = Random(7)
    limits = BodyLimits(max_values=1000)
    bodies = {
        codec(Order): BODY,
        codec(Category): codec(Category).encode({"name": "a", "parts": [], "parent": None}),
        codec(Several): b"\x02\x00\x02\x02a\x00\x06[1]",
        codec(list[Nothing]): b"\x04\x00",
        codec(Nested): b"\x02" * 30 + b"\x00" * 31,
    }
    read = 0
    tracemalloc.start()
    try:
        for _ in range(600):
            for its_codec, body in bodies.items():
                try:
                    data = its_codec.decode(mutated(rng, body), limits)
                except InvalidInput:
                    continue
                read += 1
                orjson.dumps(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert read > 100  # not only the first byte is looked at
    assert peak < 5_000_000


def mutated(rng: Random, body: bytes) -> bytes:
    """Some bytes of a body changed, removed, repeated or added; or none of it at all."""
    if rng.random() < 0.1:
        return rng.randbytes(rng.randrange(40))
    changed = bytearray(body)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(4):
            case 0:
                changed[at : at + 1] = rng.randbytes(1)
            case 1:
                del changed[at : at + rng.randrange(1, 4)]
            case 2:
                changed[at:at] = changed[at : at + 20] * rng.randrange(3)
            case _:
                changed[at:at] = number(rng.choice([-1, 10**6, 2**62, -(2**62)]))
    return bytes(changed)
