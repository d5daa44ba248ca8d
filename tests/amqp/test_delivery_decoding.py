"""Both decoders give the same delivery for any properties and headers."""

import struct
from dataclasses import fields, replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saga_engine.amqp import delivery_decoding
from saga_engine.amqp.content_frames import ContentFrames
from saga_engine.amqp.delivery_decoding import build_delivery, decode_delivery
from saga_engine.amqp.frames import encode_publish
from saga_engine.amqp.tolerant_decoding import install_decoders
from saga_engine.protocol.message import Delivery
from saga_engine.settings import Settings
from tests.kit.amqp_frames import content, decoded, deliver, encoded_properties, messages
from tests.kit.amqp_properties import (
    HEADERS,
    PROPERTIES,
    TIMESTAMP,
    TYPE,
    content_header,
    header,
    longstr,
    shortstr,
)
from tests.kit.messages import make_message

SETTINGS = Settings(max_header_count=20, max_header_bytes=4096)


@pytest.fixture(autouse=True)
def _installed():
    install_decoders()


def read(data):
    return ContentFrames(lambda _: 1000, lambda: 0).feed(data)


def both_decoded(frames):
    """The delivery that is made of the bytes, and the one that pamqp's frames give."""
    (found,) = read(b"".join(frames))
    method, content_header, *body = map(decoded, frames)
    whole = b"".join(each.value for each in body)
    expected = build_delivery(method, content_header, whole, SETTINGS, "queue", 3)
    return decode_delivery(found, found.deliver, SETTINGS, "queue", 3), expected


def assert_same(frames):
    found, expected = both_decoded(frames)
    for each in fields(Delivery):
        one, other = getattr(found, each.name), getattr(expected, each.name)
        assert (one, type(one)) == (other, type(other)), each.name
    assert list(found.headers) == list(expected.headers), "the order of headers"
    assert [*map(type, found.headers.values())] == [*map(type, expected.headers.values())]


@given(messages(1, 7))
def test_any_message_gives_the_same_delivery(frames):
    assert_same(frames)


@given(encoded_properties(), st.integers(0, 30))
def test_any_part_of_a_content_header_gives_the_same_delivery(properties, size):
    method, whole = deliver(1, 1), content(1, properties, b"")[0]
    payload = whole[7:-1][: 11 + size]
    assert_same([method, b"\2\0\1" + len(payload).to_bytes(4) + payload + b"\xce"])


@pytest.mark.parametrize("name", PROPERTIES)
def test_hostile_properties_give_the_same_delivery(name):
    properties = content_header(*PROPERTIES[name], size=0)[12:]
    assert_same([deliver(1, 1), *content(1, properties, b"body")])


VALUES = {
    **{f"int32 {value}": b"I" + struct.pack(">i", value) for value in (-(2**31), 2**31 - 1)},
    **{f"int64 {value}": b"l" + struct.pack(">q", value) for value in (-(2**63), 2**63 - 1)},
    "unsigned int64": b"L" + struct.pack(">Q", 2**64 - 1),
    "true": b"t\x02",
    "text": b"S" + longstr("\N{EURO SIGN}".encode()),
    "text that ends behind the table": b"S\0\0\0\x09x",
    "half an int32": b"I\0\0",
    "no value": b"",
}


@pytest.mark.parametrize("name", VALUES)
def test_each_type_of_header_gives_the_same_delivery(name):
    properties = content_header(HEADERS, header(b"k", VALUES[name]), size=0)[12:]
    assert_same([deliver(1, 1), *content(1, properties, b"body")])


def test_a_header_that_ends_in_the_next_property_gives_the_same_delivery():
    table = header(b"k", b"S\0\0\0\x04x")
    properties = content_header(HEADERS | TYPE, table + shortstr(b"type"), size=0)[12:]
    assert_same([deliver(1, 1), *content(1, properties, b"body")])


@pytest.mark.parametrize("seconds", [0, 2**32 - 1, 2**32, 2**36, 253_402_300_800_000, 2**63])
def test_each_timestamp_gives_the_same_delivery(seconds):
    properties = content_header(TIMESTAMP, struct.pack(">Q", seconds), size=0)[12:]
    assert_same([deliver(1, 1), *content(1, properties, b"body")])


@pytest.mark.parametrize("count", [20, 21])
@pytest.mark.parametrize("last_bytes", [1, 4006, 4007, 4008])
def test_headers_at_the_limits_give_the_same_delivery(count, last_bytes):
    entries = [b"\x01%ct\x01" % (65 + number) for number in range(count - 1)]
    table = b"".join(entries) + b"\x03endS" + longstr(b"x" * last_bytes)
    properties = content_header(HEADERS, longstr(table), size=0)[12:]
    assert_same([deliver(1, 1), *content(1, properties, b"body")])


def test_messages_of_the_engine_need_no_tolerant_decoder(monkeypatch):
    headers = {"saga": "buy", "attempt": 1, "first": True, "large": 2**40}
    message = make_message("k", b"body", headers=headers, correlation_id="c", reply_to="r")
    message = replace(message, type="t", timestamp=datetime(2026, 1, 1, tzinfo=UTC))
    sent = encode_publish(message, 1, frame_max=5000, max_body_bytes=5000, user_id="guest")
    header_and_body = sent[8 + int.from_bytes(sent[3:7]) :]
    monkeypatch.delattr(delivery_decoding, "build_delivery")
    (found,) = read(deliver(1, 1) + header_and_body)
    delivery = decode_delivery(found, found.deliver, SETTINGS, "queue", 3)
    assert delivery.headers == headers
    assert (delivery.message_id, delivery.user_id) == (message.message_id, "guest")
    assert (delivery.timestamp, delivery.body) == (message.timestamp, b"body")
