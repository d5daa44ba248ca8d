"""
Frames as bytes: cutting a stream into them, and writing those that carry what a sender wrote.

pamqp reads and writes every method but four. Publish, deliver, get-ok and return carry a sender's
routing key, which may be no UTF-8; it is kept as it came (surrogateescape, PEP 383). Layouts are
those of AMQP 0-9-1, section 4.2.
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from pamqp import base, frame

from saga_engine.embedded.broker.refusal import ConnectionRefusal

METHOD: Final = 1
HEADER: Final = 2
BODY: Final = 3
HEARTBEAT: Final = 8

PROTOCOL_HEADER: Final = b"AMQP\x00\x00\x09\x01"
HEARTBEAT_FRAME: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"
PUBLISH: Final = struct.pack(">HH", 60, 40)
_DELIVER: Final = struct.pack(">HH", 60, 60)
_GET_OK: Final = struct.pack(">HH", 60, 71)
_RETURN: Final = struct.pack(">HH", 60, 50)

_HEAD = struct.Struct(">BHI")
_END = b"\xce"
_OVERHEAD = _HEAD.size + len(_END)


class Frame(NamedTuple):
    """One frame of a peer."""

    kind: int
    channel: int
    payload: bytes


class Publish(NamedTuple):
    """The method basic.publish."""

    exchange: str
    routing_key: str
    mandatory: bool
    immediate: bool


class FrameBuffer:
    """Bytes that arrived and are not cut into frames yet."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self.frame_max = 131_072

    def feed(self, received: bytes) -> None:
        """Add what the socket gave."""
        self._bytes += received

    def protocol_header(self) -> bytes | None:
        """Take the eight bytes a client opens with, once they are there."""
        if len(self._bytes) < len(PROTOCOL_HEADER):
            return None
        return self._take(len(PROTOCOL_HEADER))

    def next(self) -> Frame | None:
        """
        Take the next complete frame.

        Raises:
            ConnectionRefusal: 501, because it is too large or does not end where it says.
        """
        if len(self._bytes) < _HEAD.size:
            return None
        kind, channel, size = _HEAD.unpack_from(self._bytes)
        if size + _OVERHEAD > self.frame_max:
            raise ConnectionRefusal(501, f"FRAME_ERROR - frame of {size} bytes is too large")
        if len(self._bytes) < size + _OVERHEAD:
            return None
        taken = self._take(size + _OVERHEAD)
        if taken[-1:] != _END:
            raise ConnectionRefusal(501, "FRAME_ERROR - a frame does not end with 206")
        return Frame(kind, channel, taken[_HEAD.size : -1])

    def _take(self, size: int) -> bytes:
        taken = bytes(self._bytes[:size])
        del self._bytes[:size]
        return taken


def read_method(payload: bytes) -> base.Frame:
    """
    Read any method but basic.publish.

    Raises:
        ConnectionRefusal: 502, because it cannot be read.
    """
    whole = _write(METHOD, 0, payload)
    try:
        method = frame.unmarshal(whole)[2]
    except Exception as error:  # Whatever bytes make it raise, the peer sent them.
        raise ConnectionRefusal(502, "SYNTAX_ERROR - a method cannot be read") from error
    assert isinstance(method, base.Frame), "a method frame holds a method"
    return method


def read_publish(payload: bytes) -> Publish:
    """
    Read basic.publish.

    Raises:
        ConnectionRefusal: 502, because it cannot be read.
    """
    exchange, end = _read_short(payload, 6)  # After class, method and the reserved ticket.
    routing_key, end = _read_short(payload, end)
    if len(payload) != end + 1:
        raise ConnectionRefusal(502, "SYNTAX_ERROR - basic.publish cannot be read")
    bits = payload[end]
    return Publish(exchange, routing_key, bool(bits & 1), bool(bits & 2))


def write_method(channel: int, method: base.Frame) -> bytes:
    """Write any method whose text is ours."""
    return frame.marshal(method, channel)


class Place(NamedTuple):
    """Where a message was published to."""

    exchange: str
    routing_key: str

    def __bytes__(self) -> bytes:
        return _short(self.exchange) + _short(self.routing_key)


def write_deliver(channel: int, consumer: str, tag: int, place: Place, *, again: bool) -> bytes:
    """Write basic.deliver."""
    arguments = _short(consumer) + struct.pack(">QB", tag, again) + bytes(place)
    return _write(METHOD, channel, _DELIVER + arguments)


def write_get_ok(channel: int, tag: int, place: Place, *, again: bool, left: int) -> bytes:
    """Write basic.get-ok."""
    arguments = struct.pack(">QB", tag, again) + bytes(place) + struct.pack(">I", left)
    return _write(METHOD, channel, _GET_OK + arguments)


def write_return(channel: int, place: Place) -> bytes:
    """Write basic.return for a message that no queue is bound for."""
    return _write(
        METHOD, channel, _RETURN + struct.pack(">H", 312) + _short("NO_ROUTE") + bytes(place)
    )


def write_content(channel: int, properties: bytes, body: bytes, frame_max: int) -> bytes:
    """Write a content header and as many body frames as it takes."""
    head = struct.pack(">HHQ", 60, 0, len(body)) + properties
    parts = [_write(HEADER, channel, head)]
    parts += [_write(BODY, channel, part) for part in _slices(body, frame_max - _OVERHEAD)]
    return b"".join(parts)


def _slices(body: bytes, size: int) -> Iterator[bytes]:
    return (body[start : start + size] for start in range(0, len(body), size))


def _write(kind: int, channel: int, payload: bytes) -> bytes:
    return _HEAD.pack(kind, channel, len(payload)) + payload + _END


def _short(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogateescape")
    return bytes([len(encoded)]) + encoded


def _read_short(payload: bytes, start: int) -> tuple[str, int]:
    end = start + 1 + int.from_bytes(payload[start : start + 1], "big")
    return payload[start + 1 : end].decode("utf-8", "surrogateescape"), end
