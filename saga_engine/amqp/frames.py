"""
Encodes a message as AMQP 0-9-1 frames, or says why it cannot be published.

Written by hand, because pamqp takes several times as long; the limits are checked while encoding. A
message for which the broker would close the channel or the connection, with everything in flight on
it, must be refused here (RabbitMQ closes the connection on a header table larger than frame_max).
Source: AMQP 0-9-1 specification, 2.3 and 4.2.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache

from pamqp.constants import FRAME_END_CHAR

from saga_engine.protocol.message import Message

MAX_HEADER_BYTES = 16_384
"""The most bytes of the headers of one message; frame_max is 128 KiB, or at least 8 KiB."""

_MAX_SHORTSTR_BYTES = 255
_FRAME_PREFIX = struct.Struct(">BHI")
_PUBLISH_HEAD = struct.Struct(">HHH")
_CONTENT_HEADER_HEAD = struct.Struct(">HHQH")
_INT32 = struct.Struct(">ci")
_INT64 = struct.Struct(">cq")
_LONGSTR_HEAD = struct.Struct(">cI")
_ACK_FRAME = struct.Struct(">BHIHHQBc")

_FRAME_METHOD, _FRAME_HEADER, _FRAME_BODY = 1, 2, 3
_BASIC_CLASS, _BASIC_PUBLISH, _BASIC_ACK, _BASIC_REJECT = 60, 40, 80, 90
_CONTENT_TYPE_BYTES = b"\x10application/json"
_APP_ID_BYTES = b"\x0bsaga-engine"
_PERSISTENT_BYTES = b"\x02"
_ALWAYS_SET_FLAGS = 1 << 15 | 1 << 13 | 1 << 12 | 1 << 7 | 1 << 3
_CORRELATION_ID_FLAG, _REPLY_TO_FLAG, _TIMESTAMP_FLAG, _TYPE_FLAG, _USER_ID_FLAG = (
    1 << 10,
    1 << 9,
    1 << 6,
    1 << 5,
    1 << 4,
)


class UnpublishableMessage(ValueError):
    """A message exceeds a limit, which the text names. It is not sent to the broker."""


MIN_FRAME_MAX = 4096
"""frame_max that AMQP guarantees; for checking a message before a connection is open."""


def unpublishable_reason(message: Message, *, max_body_bytes: int, user_id: str) -> str:
    """Why this message can never be published, in a sentence; empty when it can."""
    try:
        encode_publish(
            message, 1, frame_max=MIN_FRAME_MAX, max_body_bytes=max_body_bytes, user_id=user_id
        )
    except UnpublishableMessage as error:
        return str(error)
    return ""


def encode_publish(
    message: Message, channel: int, *, frame_max: int, max_body_bytes: int, user_id: str = ""
) -> bytes:
    """
    Encode one message for `channel`.

    Args:
        user_id: the user of the connection, which the broker verifies; empty sends none.

    Raises:
        UnpublishableMessage: a routing key or an id has more than 255 bytes, the headers have more
            than 16 KiB or another type than str, int and bool, the body has more than
            `max_body_bytes`, or a text is not valid Unicode.
    """
    if len(message.body) > max_body_bytes:
        raise UnpublishableMessage(
            f"Its body has {len(message.body)} bytes; {max_body_bytes} are allowed."
        )
    method = (
        _PUBLISH_HEAD.pack(_BASIC_CLASS, _BASIC_PUBLISH, 0)
        + _cached_shortstr(message.exchange, "exchange")
        + _encode_shortstr(message.routing_key, "routing key")
        + (b"\x01" if message.mandatory else b"\x00")
    )
    parts = [
        _encode_frame(_FRAME_METHOD, channel, method),
        _encode_frame(_FRAME_HEADER, channel, _content_header(message, user_id)),
    ]
    max_chunk_bytes = frame_max - 8
    parts += [
        _encode_frame(_FRAME_BODY, channel, message.body[start : start + max_chunk_bytes])
        for start in range(0, len(message.body), max_chunk_bytes)
    ]
    return b"".join(parts)


def encode_ack(channel: int, tag: int, *, multiple: bool) -> bytes:
    """Encode the acknowledgement of `tag`, and of all tags before it if `multiple`."""
    return _ACK_FRAME.pack(
        _FRAME_METHOD, channel, 13, _BASIC_CLASS, _BASIC_ACK, tag, multiple, FRAME_END_CHAR
    )


def encode_reject(channel: int, tag: int) -> bytes:
    """Encode the rejection of `tag` without requeueing: the queue's policy dead-letters it."""
    return _ACK_FRAME.pack(
        _FRAME_METHOD, channel, 13, _BASIC_CLASS, _BASIC_REJECT, tag, 0, FRAME_END_CHAR
    )


def _content_header(message: Message, user_id: str) -> bytes:
    flags = _ALWAYS_SET_FLAGS
    before_message_id = after_message_id = b""
    if message.correlation_id:
        flags |= _CORRELATION_ID_FLAG
        before_message_id = _encode_shortstr(message.correlation_id, "correlation id")
    if message.reply_to:
        flags |= _REPLY_TO_FLAG
        before_message_id += _cached_shortstr(message.reply_to, "reply_to")
    if message.timestamp:
        flags |= _TIMESTAMP_FLAG
        after_message_id = struct.pack(">Q", int(message.timestamp.timestamp()))
    if message.type:
        flags |= _TYPE_FLAG
        after_message_id += _cached_shortstr(message.type, "type")
    if user_id:
        flags |= _USER_ID_FLAG
        after_message_id += _cached_shortstr(user_id, "user id")
    return b"".join(
        (
            _CONTENT_HEADER_HEAD.pack(_BASIC_CLASS, 0, len(message.body), flags),
            _CONTENT_TYPE_BYTES,
            _encode_table(message),
            _PERSISTENT_BYTES,
            before_message_id,
            _encode_shortstr(message.message_id, "message id"),
            after_message_id,
            _APP_ID_BYTES,
        )
    )


def _encode_frame(frame_type: int, channel: int, payload: bytes) -> bytes:
    return _FRAME_PREFIX.pack(frame_type, channel, len(payload)) + payload + FRAME_END_CHAR


def _encode_shortstr(text: str, field_name: str) -> bytes:
    encoded = _encode_utf8(text, field_name)
    if len(encoded) > _MAX_SHORTSTR_BYTES:
        raise UnpublishableMessage(
            f"Its {field_name} has {len(encoded)} bytes; {_MAX_SHORTSTR_BYTES} are allowed."
        )
    return bytes((len(encoded),)) + encoded


def _encode_utf8(text: str, field_name: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise UnpublishableMessage(f"Its {field_name} is not Unicode.") from None


def _encode_table(message: Message) -> bytes:
    table = b"".join(
        _cached_shortstr(name, "header's name") + _encode_value(name, value)
        for name, value in message.headers.items()
    )
    if message.other_routing_keys:
        table += _encode_other_routing_keys(message.other_routing_keys)
    if len(table) > MAX_HEADER_BYTES:
        raise UnpublishableMessage(
            f"Its headers have {len(table)} bytes; {MAX_HEADER_BYTES} are allowed."
        )
    return struct.pack(">I", len(table)) + table


def _encode_other_routing_keys(keys: Sequence[str]) -> bytes:
    """The header BCC: an array of texts, which RabbitMQ removes before it delivers the message."""
    items = b"".join(_encode_value("BCC", each) for each in keys)
    return b"\x03BCC" + _LONGSTR_HEAD.pack(b"A", len(items)) + items


# A process uses a few dozen names of headers, exchanges and commands over and over.
_cached_shortstr = lru_cache(maxsize=512)(_encode_shortstr)


def _encode_value(name: str, value: object) -> bytes:
    if isinstance(value, str):
        encoded = _encode_utf8(value, f"header {name!r}")
        return _LONGSTR_HEAD.pack(b"S", len(encoded)) + encoded
    if isinstance(value, bool):
        return b"t\x01" if value else b"t\x00"
    if isinstance(value, int):
        if -(2**31) <= value < 2**31:
            return _INT32.pack(b"I", value)
        if -(2**63) <= value < 2**63:
            return _INT64.pack(b"l", value)
    raise UnpublishableMessage(
        f"Its header {name!r} is neither text, nor a 64-bit integer, nor a bool."
    )
