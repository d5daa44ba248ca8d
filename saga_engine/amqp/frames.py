"""
A message as AMQP 0-9-1 frames, and the reason why one cannot be published.

Written by hand and not with pamqp, which takes several times as long, and with the limits checked
on the way. A message the broker would answer by closing the channel or the connection, with
everything else in flight on it, must be found here (RabbitMQ closes the connection on a header
table beyond frame_max). Source: AMQP 0-9-1 specification, 2.3 and 4.2.
"""

import struct
from functools import lru_cache

from pamqp.constants import FRAME_END_CHAR

from saga_engine.protocol.message import Message

HEADERS_BYTES = 16_384
"""Headers of one message at most; far below frame_max, which is 128 KiB and may be set to 8."""

_SHORT = 255
_FRAME = struct.Struct(">BHI")
_PUBLISH = struct.Struct(">HHH")
_HEADER = struct.Struct(">HHQH")
_INT32 = struct.Struct(">ci")
_INT64 = struct.Struct(">cq")
_LONG = struct.Struct(">cI")
_ACK = struct.Struct(">BHIHHQBc")

_METHOD, _CONTENT, _BODY = 1, 2, 3
_BASIC, _BASIC_PUBLISH, _BASIC_ACK, _BASIC_REJECT = 60, 40, 80, 90
_CONTENT_TYPE = b"\x10application/json"
_APP_ID = b"\x0bsaga-engine"
_PERSISTENT = b"\x02"
_ALWAYS = 1 << 15 | 1 << 13 | 1 << 12 | 1 << 7 | 1 << 3
_CORRELATION_ID, _REPLY_TO, _TIMESTAMP, _TYPE, _USER_ID = 1 << 10, 1 << 9, 1 << 6, 1 << 5, 1 << 4


class RefusedMessage(ValueError):
    """A message breaks a limit; the text says which. It never reaches the broker."""


def published(
    message: Message, channel: int, *, frame_max: int, body_bytes: int, user_id: str = ""
) -> bytes:
    """
    Frame one message for `channel`.

    Args:
        user_id: the connection's user, which the broker holds the message to; empty says none.

    Raises:
        RefusedMessage: a routing key or an id beyond 255 bytes, headers beyond 16 KiB or of another
            type than str, int and bool, a body beyond `body_bytes`, text that is not Unicode.
    """
    if len(message.body) > body_bytes:
        raise RefusedMessage(f"Its body has {len(message.body)} bytes; {body_bytes} are allowed.")
    method = (
        _PUBLISH.pack(_BASIC, _BASIC_PUBLISH, 0)
        + _name(message.exchange, "exchange")
        + _shortstr(message.routing_key, "routing key")
        + (b"\x01" if message.mandatory else b"\x00")
    )
    parts = [_frame(_METHOD, channel, method), _frame(_CONTENT, channel, _header(message, user_id))]
    room = frame_max - 8
    parts += [
        _frame(_BODY, channel, message.body[start : start + room])
        for start in range(0, len(message.body), room)
    ]
    return b"".join(parts)


def acknowledged(channel: int, tag: int, *, multiple: bool) -> bytes:
    """Frame the acknowledgement of `tag`, and of all before it if `multiple`."""
    return _ACK.pack(_METHOD, channel, 13, _BASIC, _BASIC_ACK, tag, multiple, FRAME_END_CHAR)


def rejected(channel: int, tag: int) -> bytes:
    """Frame the rejection of `tag` without a second try: the queue's policy dead-letters it."""
    return _ACK.pack(_METHOD, channel, 13, _BASIC, _BASIC_REJECT, tag, 0, FRAME_END_CHAR)


def _header(message: Message, user_id: str) -> bytes:
    flags = _ALWAYS
    early = late = b""
    if message.correlation_id:
        flags |= _CORRELATION_ID
        early = _shortstr(message.correlation_id, "correlation id")
    if message.reply_to:
        flags |= _REPLY_TO
        early += _name(message.reply_to, "reply_to")
    if message.timestamp:
        flags |= _TIMESTAMP
        late = struct.pack(">Q", int(message.timestamp.timestamp()))
    if message.type:
        flags |= _TYPE
        late += _name(message.type, "type")
    if user_id:
        flags |= _USER_ID
        late += _name(user_id, "user id")
    return b"".join(
        (
            _HEADER.pack(_BASIC, 0, len(message.body), flags),
            _CONTENT_TYPE,
            _table(message),
            _PERSISTENT,
            early,
            _shortstr(message.message_id, "message id"),
            late,
            _APP_ID,
        )
    )


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return _FRAME.pack(kind, channel, len(payload)) + payload + FRAME_END_CHAR


def _shortstr(text: str, what: str) -> bytes:
    encoded = _utf8(text, what)
    if len(encoded) > _SHORT:
        raise RefusedMessage(f"Its {what} has {len(encoded)} bytes; {_SHORT} are allowed.")
    return bytes((len(encoded),)) + encoded


def _utf8(text: str, what: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise RefusedMessage(f"Its {what} is not Unicode.") from None


def _table(message: Message) -> bytes:
    table = b"".join(
        _name(name, "header's name") + _value(name, value)
        for name, value in message.headers.items()
    )
    if len(table) > HEADERS_BYTES:
        raise RefusedMessage(f"Its headers have {len(table)} bytes; {HEADERS_BYTES} are allowed.")
    return struct.pack(">I", len(table)) + table


# A process uses a few dozen names of headers, exchanges and commands over and over.
_name = lru_cache(maxsize=512)(_shortstr)


def _value(name: str, value: object) -> bytes:
    if isinstance(value, str):
        encoded = _utf8(value, f"header {name!r}")
        return _LONG.pack(b"S", len(encoded)) + encoded
    if isinstance(value, bool):
        return b"t\x01" if value else b"t\x00"
    if isinstance(value, int):
        if -(2**31) <= value < 2**31:
            return _INT32.pack(b"I", value)
        if -(2**63) <= value < 2**63:
            return _INT64.pack(b"l", value)
    raise RefusedMessage(f"Its header {name!r} is neither text, nor a 64-bit integer, nor a bool.")
