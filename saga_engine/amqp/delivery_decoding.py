"""
Makes a delivery of the frames of a message.

There are two decoders. `decode_delivery` reads the properties and headers that programs usually
send; for anything else it falls back to `build_delivery`, which takes the frames that pamqp decodes
with `tolerant_decoding`. Both give the same delivery (tests/amqp/test_delivery_decoding.py), and
neither raises an error on what a sender sent.
"""

import struct
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import pamqp.frame
from pamqp import commands
from pamqp.header import ContentHeader

from saga_engine.amqp.content_frames import PREFIX_BYTES, Content, Deliver
from saga_engine.amqp.headers import read_headers
from saga_engine.amqp.tolerant_decoding import UNDECODABLE_HEADER, decode_short_text
from saga_engine.protocol.message import Delivery
from saga_engine.settings import Settings
from saga_engine.vocabulary import Json

_TEXT, _TABLE, _TIMESTAMP, _OCTET, _UNUSED_TEXT = range(5)
_PROPERTIES: Final = (
    ("content_type", _TEXT),
    ("content_encoding", _TEXT),
    ("headers", _TABLE),
    ("delivery_mode", _OCTET),
    ("priority", _OCTET),
    ("correlation_id", _TEXT),
    ("reply_to", _TEXT),
    ("expiration", _UNUSED_TEXT),
    ("message_id", _TEXT),
    ("timestamp", _TIMESTAMP),
    ("type", _TEXT),
    ("user_id", _TEXT),
    ("app_id", _TEXT),
    ("cluster_id", _UNUSED_TEXT),
)
"""The properties in their order, and how each is read; the first has the highest flag."""
_UNKNOWN_FLAGS: Final = 0b11
"""Flags of no property; the last one says that more flags follow."""
_ABSENT: Final[dict[str, Any]] = {
    **{name: "" for name, kind in _PROPERTIES if kind == _TEXT},
    "timestamp": None,
}

_FLAGS_AT: Final = PREFIX_BYTES + 12
_FLAGS = struct.Struct(">H")
_LENGTH = struct.Struct(">I")
_INT32 = struct.Struct(">i")
_INT64 = struct.Struct(">q")
_SECONDS = struct.Struct(">Q")
_MAX_SECONDS: Final = 0xFFFFFFFF
"""The latest time that pamqp reads as seconds; it reads a larger number as milliseconds."""


class _UnusualHeaderError(Exception):
    """The tolerant decoder has to read this header."""


def decode_delivery(
    content: Content, deliver: Deliver, settings: Settings, queue: str, generation: int
) -> Delivery:
    """Decode a message whose frames are whole; nothing in them raises an error."""
    try:
        properties = _decode_properties(content.header_frame, settings)
    except (_UnusualHeaderError, IndexError, struct.error, UnicodeDecodeError):
        return _build_from_content(content, settings, queue, generation)
    return Delivery(
        queue=queue,
        generation=generation,
        delivery_tag=deliver.delivery_tag,
        body=content.body,
        body_size=content.body_size,
        exchange=deliver.exchange,
        routing_key=deliver.routing_key,
        redelivered=deliver.redelivered,
        **properties,
    )


def build_delivery(
    frame: commands.Basic.Deliver,
    header: ContentHeader,
    body: bytes,
    settings: Settings,
    queue: str,
    generation: int,
) -> Delivery:
    """Build a delivery from its frames; nothing in them raises an error."""
    properties = header.properties
    headers, problem = read_headers(properties.headers or {}, settings)
    return Delivery(
        queue=queue,
        generation=generation,
        delivery_tag=frame.delivery_tag or 0,
        body=body,
        body_size=header.body_size,
        exchange=frame.exchange or "",
        routing_key=frame.routing_key or "",
        redelivered=bool(frame.redelivered),
        message_id=properties.message_id or "",
        correlation_id=properties.correlation_id or "",
        reply_to=properties.reply_to or "",
        type=properties.message_type or "",
        content_type=properties.content_type or "",
        content_encoding=properties.content_encoding or "",
        user_id=properties.user_id or "",
        app_id=properties.app_id or "",
        timestamp=properties.timestamp if isinstance(properties.timestamp, datetime) else None,
        headers=headers,
        header_problem=problem,
    )


def _build_from_content(
    content: Content, settings: Settings, queue: str, generation: int
) -> Delivery:
    method = pamqp.frame.unmarshal(content.method_frame)[2]
    header = pamqp.frame.unmarshal(content.header_frame)[2]
    assert isinstance(method, commands.Basic.Deliver), "ContentFrames has read it"
    assert isinstance(header, ContentHeader), "ContentFrames has read it"
    return build_delivery(method, header, content.body, settings, queue, generation)


def _decode_properties(frame: bytes, settings: Settings) -> dict[str, Any]:
    """
    Decode the properties that a delivery has, by its names for them.

    Raises:
        _UnusualHeaderError, IndexError, struct.error, UnicodeDecodeError: it must be read by the
            tolerant decoder.
    """
    (flags,) = _FLAGS.unpack_from(frame, _FLAGS_AT)
    offset, end = _FLAGS_AT + _FLAGS.size, len(frame) - 1
    properties = _ABSENT | {"headers": {}}
    for name, kind in _present_properties(flags):
        start = offset
        if kind == _TEXT:
            offset += 1 + frame[start]
            properties[name] = decode_short_text(frame[start + 1 : offset])
        elif kind == _TABLE:
            offset += _LENGTH.size + _LENGTH.unpack_from(frame, start)[0]
            if offset > end or offset - start > settings.max_header_bytes:
                raise _UnusualHeaderError
            properties[name] = _decode_headers(frame, start + _LENGTH.size, offset, settings)
        elif kind == _TIMESTAMP:
            offset += _SECONDS.size
            properties[name] = _decode_timestamp(_SECONDS.unpack_from(frame, start)[0])
        else:
            offset += 1 if kind == _OCTET else 1 + frame[start]
    if offset != end:
        raise _UnusualHeaderError
    return properties


@lru_cache(maxsize=256)
def _present_properties(flags: int) -> list[tuple[str, int]]:
    """Return the properties whose flags are set, in their order; programs use a few sets."""
    if flags & _UNKNOWN_FLAGS:
        raise _UnusualHeaderError
    return [each for place, each in enumerate(_PROPERTIES) if flags & 1 << (15 - place)]


def _decode_timestamp(seconds: int) -> datetime:
    if seconds > _MAX_SECONDS:
        raise _UnusualHeaderError
    return datetime.fromtimestamp(seconds, UTC)


def _decode_headers(frame: bytes, offset: int, end: int, settings: Settings) -> dict[str, Json]:
    """Decode a table with values of the types that this engine sends, within the limits."""
    headers: dict[str, Json] = {}
    while offset < end:
        type_at = offset + 1 + frame[offset]
        name = frame[offset + 1 : type_at].decode()
        decode = _VALUE_DECODERS.get(frame[type_at])
        if decode is None or "\0" in name:
            raise _UnusualHeaderError
        headers[name], offset = decode(frame, type_at + 1)
    if offset != end or UNDECODABLE_HEADER in headers or len(headers) > settings.max_header_count:
        raise _UnusualHeaderError
    return headers


def _decode_long_text(frame: bytes, offset: int) -> tuple[Json, int]:
    start = offset + _LENGTH.size
    end = start + _LENGTH.unpack_from(frame, offset)[0]
    text = frame[start:end].decode()
    if "\0" in text:
        raise _UnusualHeaderError
    return text, end


def _decode_bool(frame: bytes, offset: int) -> tuple[Json, int]:
    return frame[offset] != 0, offset + 1


def _decode_int32(frame: bytes, offset: int) -> tuple[Json, int]:
    return _INT32.unpack_from(frame, offset)[0], offset + _INT32.size


def _decode_int64(frame: bytes, offset: int) -> tuple[Json, int]:
    return _INT64.unpack_from(frame, offset)[0], offset + _INT64.size


_VALUE_DECODERS: Final[dict[int, Callable[[bytes, int], tuple[Json, int]]]] = {
    ord("S"): _decode_long_text,
    ord("t"): _decode_bool,
    ord("I"): _decode_int32,
    ord("l"): _decode_int64,
    ord("L"): _decode_int64,
}
"""By type code, functions of a frame and where the value starts; they return its end as well."""
