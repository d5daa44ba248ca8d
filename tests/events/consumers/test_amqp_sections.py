"""What a consumer needs of a message of AMQP 1.0, and no message that takes more than its bytes."""

import resource
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saga_engine.events.consumers.amqp_sections import NotAmqp, read_sections

NAME, ABSENT = b"\xa1\x01a", b"\x40"


def section(number: int, value: bytes) -> bytes:
    return b"\x00\x53" + bytes([number]) + value


def compound(constructor: int, *elements: bytes) -> bytes:
    """A list or a map, of one byte or four for its size and its count."""
    content = b"".join(elements)
    form = ">BB" if constructor < 0xD0 else ">II"
    size = len(content) + struct.calcsize(form) // 2
    return bytes([constructor]) + struct.pack(form, size, len(elements)) + content


def properties(*elements: bytes) -> bytes:
    return section(0x74, compound(0xC1, *elements))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"\xa1\x02\xc3\xa9", b"\xc3\xa9"),
        (b"\xb1\x00\x00\x00\x01x", b"x"),
        (b"\xa0\x02\xff\x00", b"\xff\x00"),
        (b"\x53\x07", "7"),
        (b"\x81" + (-1).to_bytes(8, signed=True), "-1"),
        (b"\x82" + struct.pack(">d", 0.5), "0.5"),
        (b"\x41", "True"),
        (b"\x44", "0"),
    ],
)
def test_a_simple_property_is_read(value, expected):
    assert read_sections(properties(NAME, value), 1).properties == [("a", expected)]


@pytest.mark.parametrize(
    "value",
    [
        ABSENT,
        b"\x98" + bytes(16),
        compound(0xC0, NAME, NAME),
        b"\x00\xa3\x01t" + NAME,  # a described type
        b"\xf0" + struct.pack(">II", 5, 2**32 - 1) + b"\x40",  # an array of 4 billion nulls
        b"\xd0" + struct.pack(">II", 4, 2**32 - 1),  # a list of as many
    ],
)
def test_a_value_of_another_kind_is_passed_over(value):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    message = read_sections(properties(NAME, value, b"\xa1\x01b", b"\xa1\x01c"), 2)
    assert message.properties == [("b", b"c")]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 65_536  # KiB


def test_a_body_is_all_data_and_has_its_type_and_encoding():
    named = compound(0xD0, *[ABSENT] * 6, b"\xa3\x04json", b"\xa3\x04gzip")
    data = section(0x75, b"\xa0\x02{}")
    footer = section(0x78, compound(0xC1))
    message = read_sections(section(0x70, b"\x45") + section(0x73, named) + data + data + footer, 0)
    assert (message.content_type, message.content_encoding) == (b"json", b"gzip")
    assert (message.data, message.has_value) == ([b"{}", b"{}"], False)


@pytest.mark.parametrize("number", [0x76, 0x77])
def test_a_body_that_is_a_value_of_amqp_is_noticed(number):
    assert read_sections(section(number, b"\xa1\x02{}"), 0).has_value


@pytest.mark.parametrize(
    "encoded",
    [
        b"{}",
        b"\x00",
        b"\x00" * 100_000,
        section(0x01, b"\x40"),
        section(0x74, b"\x40"),
        section(0x75, b"\xa1\x00"),
        section(0x75, b"\xb0\xff\xff\xff\xff"),
        properties(NAME),
        properties(b"\x40", NAME),
        section(0x74, b"\x0f"),
    ],
)
def test_what_is_not_amqp_is_refused(encoded):
    with pytest.raises(NotAmqp):
        read_sections(encoded, 2)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(encoded):
    for prefix in (b"", b"\x00\x53\x74\xc1", b"\x00\x53\x73\xd0"):
        with suppress(NotAmqp):
            read_sections(prefix + encoded, 5)


def test_more_properties_than_allowed_are_not_read():
    with pytest.raises(NotAmqp, match="more than 2 application properties"):
        read_sections(properties(*[NAME, ABSENT] * 3), 2)
