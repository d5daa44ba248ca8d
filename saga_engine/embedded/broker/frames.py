"""
Frames: splits a byte stream into frames, and writes the methods that carry messages.

pamqp reads and writes every method but four. Publish, deliver, get-ok and return contain a routing
key that may not be UTF-8; it is kept byte by byte (surrogateescape, PEP 383). The layouts are those
of AMQP 0-9-1, section 4.2.
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from pamqp import base, frame

from saga_engine.embedded.broker.refusal import ConnectionException

FRAME_METHOD: Final = 1
FRAME_HEADER: Final = 2
FRAME_BODY: Final = 3
FRAME_HEARTBEAT: Final = 8

PROTOCOL_HEADER: Final = b"AMQP\x00\x00\x09\x01"
HEARTBEAT_FRAME: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"
PUBLISH_METHOD: Final = struct.pack(">HH", 60, 40)
_DELIVER_METHOD: Final = struct.pack(">HH", 60, 60)
_GET_OK_METHOD: Final = struct.pack(">HH", 60, 71)
_RETURN_METHOD: Final = struct.pack(">HH", 60, 50)

_FRAME_PREFIX = struct.Struct(">BHI")
_FRAME_END = b"\xce"
_FRAME_OVERHEAD = _FRAME_PREFIX.size + len(_FRAME_END)


class Frame(NamedTuple):
    """A frame that arrived."""

    frame_type: int
    channel: int
    payload: bytes


class Publish(NamedTuple):
    """The arguments of basic.publish."""

    exchange: str
    routing_key: str
    mandatory: bool
    immediate: bool


class FrameBuffer:
    """Bytes that arrived and are not yet split into frames."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self.frame_max = 131_072

    def feed(self, data: bytes) -> None:
        """Add bytes from the socket."""
        self._bytes += data

    def take_protocol_header(self) -> bytes | None:
        """Take the protocol header (eight bytes), or None until it has arrived."""
        if len(self._bytes) < len(PROTOCOL_HEADER):
            return None
        return self._take(len(PROTOCOL_HEADER))

    def next_frame(self) -> Frame | None:
        """
        Take the next complete frame, or None.

        Raises:
            ConnectionException: 501, if it is too large or has no end octet.
        """
        if len(self._bytes) < _FRAME_PREFIX.size:
            return None
        frame_type, channel, size = _FRAME_PREFIX.unpack_from(self._bytes)
        if size + _FRAME_OVERHEAD > self.frame_max:
            raise ConnectionException(501, f"FRAME_ERROR - frame of {size} bytes is too large")
        if len(self._bytes) < size + _FRAME_OVERHEAD:
            return None
        taken = self._take(size + _FRAME_OVERHEAD)
        if taken[-1:] != _FRAME_END:
            raise ConnectionException(501, "FRAME_ERROR - a frame does not end with 206")
        return Frame(frame_type, channel, taken[_FRAME_PREFIX.size : -1])

    def _take(self, size: int) -> bytes:
        taken = bytes(self._bytes[:size])
        del self._bytes[:size]
        return taken


def read_method(payload: bytes) -> base.Frame:
    """
    Read any method but basic.publish.

    Raises:
        ConnectionException: 502, if it is malformed.
    """
    frame_bytes = _encode_frame(FRAME_METHOD, 0, payload)
    try:
        method = frame.unmarshal(frame_bytes)[2]
    except Exception as error:  # Any error is caused by the bytes that the peer sent.
        raise ConnectionException(502, "SYNTAX_ERROR - a method cannot be read") from error
    assert isinstance(method, base.Frame), "a method frame contains a method"
    return method


def read_publish(payload: bytes) -> Publish:
    """
    Read basic.publish.

    Raises:
        ConnectionException: 502, if it is malformed.
    """
    exchange, end = _decode_shortstr(
        payload, 6
    )  # After the class, the method and the reserved ticket.
    routing_key, end = _decode_shortstr(payload, end)
    if len(payload) != end + 1:
        raise ConnectionException(502, "SYNTAX_ERROR - basic.publish cannot be read")
    bits = payload[end]
    return Publish(exchange, routing_key, bool(bits & 1), bool(bits & 2))


def write_method(channel: int, method: base.Frame) -> bytes:
    """Write a method that contains no text of a sender."""
    return frame.marshal(method, channel)


class Destination(NamedTuple):
    """The exchange and the routing key of a message."""

    exchange: str
    routing_key: str

    def __bytes__(self) -> bytes:
        return _encode_shortstr(self.exchange) + _encode_shortstr(self.routing_key)


def write_deliver(
    channel: int,
    consumer_tag: str,
    delivery_tag: int,
    destination: Destination,
    *,
    redelivered: bool,
) -> bytes:
    """Write basic.deliver."""
    arguments = (
        _encode_shortstr(consumer_tag)
        + struct.pack(">QB", delivery_tag, redelivered)
        + bytes(destination)
    )
    return _encode_frame(FRAME_METHOD, channel, _DELIVER_METHOD + arguments)


def write_get_ok(
    channel: int,
    delivery_tag: int,
    destination: Destination,
    *,
    redelivered: bool,
    message_count: int,
) -> bytes:
    """Write basic.get-ok."""
    arguments = (
        struct.pack(">QB", delivery_tag, redelivered)
        + bytes(destination)
        + struct.pack(">I", message_count)
    )
    return _encode_frame(FRAME_METHOD, channel, _GET_OK_METHOD + arguments)


def write_return(channel: int, destination: Destination) -> bytes:
    """Write basic.return for an unroutable message."""
    return _encode_frame(
        FRAME_METHOD,
        channel,
        _RETURN_METHOD + struct.pack(">H", 312) + _encode_shortstr("NO_ROUTE") + bytes(destination),
    )


def write_content(channel: int, properties: bytes, body: bytes, frame_max: int) -> bytes:
    """Write a content header and the body frames."""
    head = struct.pack(">HHQ", 60, 0, len(body)) + properties
    parts = [_encode_frame(FRAME_HEADER, channel, head)]
    parts += [
        _encode_frame(FRAME_BODY, channel, part)
        for part in _chunks(body, frame_max - _FRAME_OVERHEAD)
    ]
    return b"".join(parts)


def _chunks(body: bytes, size: int) -> Iterator[bytes]:
    return (body[start : start + size] for start in range(0, len(body), size))


def _encode_frame(frame_type: int, channel: int, payload: bytes) -> bytes:
    return _FRAME_PREFIX.pack(frame_type, channel, len(payload)) + payload + _FRAME_END


def _encode_shortstr(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogateescape")
    return bytes([len(encoded)]) + encoded


def _decode_shortstr(payload: bytes, start: int) -> tuple[str, int]:
    end = start + 1 + int.from_bytes(payload[start : start + 1], "big")
    return payload[start + 1 : end].decode("utf-8", "surrogateescape"), end
