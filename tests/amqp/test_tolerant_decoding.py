import struct

import orjson
import pamqp.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import decode
from pamqp.header import ContentHeader

from saga_engine.amqp import tolerant_decoding
from saga_engine.amqp.headers import read_headers
from saga_engine.amqp.tolerant_decoding import UNDECODABLE_HEADER, to_json
from saga_engine.errors import ConfigurationError
from saga_engine.settings import Settings
from tests.kit.amqp_properties import (
    HEADERS,
    PROPERTIES,
    UNDELIVERABLE,
    content_header,
    longstr,
    nested_tables,
    shortstr,
)
from tests.kit.growth import count_calls


@pytest.fixture(autouse=True)
def _installed():
    tolerant_decoding.install_decoders()


def frame(payload):
    framed = struct.pack(">BHI", 2, 1, len(payload)) + payload + b"\xce"
    _, _, header = pamqp.frame.unmarshal(framed)
    assert isinstance(header, ContentHeader)
    return header


@pytest.mark.parametrize("name", PROPERTIES)
def test_hostile_properties_decode_to_storable_values(name):
    header = frame(content_header(*PROPERTIES[name], size=5))
    assert header.body_size == 5
    stored = orjson.dumps(to_json(header.properties.headers))
    assert b"\\u0000" not in stored
    for text in (header.properties.message_id, header.properties.correlation_id):
        assert text is None or "\0" not in text


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("B32 header key not UTF-8", {"\ufffd\ufffd": "v"}),
        ("B34 200 nested tables", None),
        ("B34 2000 nested tables", None),
        ("B34 2000 nested arrays", None),
        ("B35 unknown type", {"k": "v"}),
        ("B35 longer than it is", {"k": "v"}),
    ],
)
def test_partly_undecodable_table_is_marked_and_keeps_the_rest(name, kept):
    found = frame(content_header(*(PROPERTIES | UNDELIVERABLE)[name], size=1)).properties.headers
    assert found.pop(UNDECODABLE_HEADER) is True
    assert kept is None or found == kept


def test_broker_headers_are_read_beside_undecodable_ones():
    death = (
        shortstr(b"x-death") + b"A" + longstr(b"F" + longstr(shortstr(b"queue") + b"S\0\0\0\1q"))
    )
    deep = nested_tables(200)[4:]
    found = frame(content_header(HEADERS, longstr(deep + death), size=1)).properties.headers
    assert found[UNDECODABLE_HEADER] is True
    assert found["x-death"] == [{"queue": "q"}]


@pytest.mark.parametrize(
    "name", ["B38 14,000 headers", "B38 header of 120 KB", "B34 2000 nested arrays"]
)
def test_reading_a_table_takes_linear_time(name):
    flags, table = PROPERTIES[name]
    steps = count_calls(lambda: frame(content_header(flags, table, size=1)))
    assert steps < 15 * len(table)


@given(st.binary(max_size=200))
def test_any_header_table_decodes_to_storable_values(table):
    header = frame(content_header(HEADERS, longstr(table), size=3))
    stored, _ = read_headers(header.properties.headers, Settings())
    assert b"\\u0000" not in orjson.dumps(stored)


@given(st.integers(0, 0xFFFE), st.binary(max_size=100))
def test_no_content_header_raises_an_error(flags, properties):
    header = frame(content_header(flags, properties, size=3))
    assert header.body_size == 3
    to_json(header.properties.headers)


def test_truncated_flags_keep_the_body_size():
    header = frame(struct.pack(">HHQ", 60, 0, 9))
    assert header.body_size == 9
    assert header.properties.headers == {UNDECODABLE_HEADER: True}


def test_valid_headers_are_unchanged():
    table = b"\x01kS\x00\x00\x00\x01v"
    header = frame(content_header(HEADERS, struct.pack(">I", len(table)) + table, size=0))
    assert header.properties.headers == {"k": "v"}


def test_unsupported_pamqp_is_refused(monkeypatch):
    monkeypatch.setattr(decode, "by_type", lambda *_: (0, None))
    with pytest.raises(ConfigurationError, match="pamqp"):
        tolerant_decoding.install_decoders()
