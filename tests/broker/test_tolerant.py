import struct

import orjson
import pamqp.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import decode
from pamqp.header import ContentHeader

from saga_engine.broker import tolerant
from saga_engine.broker.tolerant import UNDECODABLE, plain
from saga_engine.errors import ConfigurationError
from tests.broker.hostile import HEADERS, PROPERTIES, content_header


@pytest.fixture(autouse=True)
def _installed():
    tolerant.install()


def frame(payload):
    framed = struct.pack(">BHI", 2, 1, len(payload)) + payload + b"\xce"
    _, _, header = pamqp.frame.unmarshal(framed)
    assert isinstance(header, ContentHeader)
    return header


@pytest.mark.parametrize("name", PROPERTIES)
def test_hostile_properties_decode_to_something_that_can_be_stored(name):
    header = frame(content_header(*PROPERTIES[name], size=5))
    assert header.body_size == 5
    stored = orjson.dumps(plain(header.properties.headers))
    assert b"\\u0000" not in stored
    for text in (header.properties.message_id, header.properties.correlation_id):
        assert text is None or "\0" not in text


@pytest.mark.parametrize(
    "name", ["header key not UTF-8", "2000 nested tables", "2000 nested arrays", "14,000 headers"]
)
def test_table_that_cannot_be_read_says_so(name):
    assert frame(content_header(*PROPERTIES[name], size=1)).properties.headers == {
        UNDECODABLE: True
    }


@given(st.integers(0, 0xFFFE), st.binary(max_size=100))
def test_no_content_header_ever_raises(flags, properties):
    header = frame(content_header(flags, properties, size=3))
    assert header.body_size == 3
    plain(header.properties.headers)


def test_flags_cut_short_leave_the_size_of_the_body():
    header = frame(struct.pack(">HHQ", 60, 0, 9))
    assert header.body_size == 9
    assert header.properties.headers == {UNDECODABLE: True}


def test_innocent_headers_are_read_as_ever():
    table = b"\x01kS\x00\x00\x00\x01v"
    header = frame(content_header(HEADERS, struct.pack(">I", len(table)) + table, size=0))
    assert header.properties.headers == {"k": "v"}


def test_start_fails_when_pamqp_has_moved(monkeypatch):
    monkeypatch.setattr(decode, "by_type", lambda *_: (0, None))
    with pytest.raises(ConfigurationError, match="pamqp"):
        tolerant.install()
