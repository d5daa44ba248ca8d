"""
Splits received bytes into messages and confirms, in one pass and without I/O.

A frame is read here if it belongs to a message (basic.deliver or basic.return, the content header
and the body) or is a confirm (basic.ack or basic.nack), on a channel whose content is read here.
Every other frame is handed back as it arrived, at its place between the others, for aiormq.

A method with another layout leaves its channel to aiormq from there on, until a channel of that
number is opened again. A method within a message ends it, as AMQP allows: the message is dropped. A
frame that is malformed, too large, or content that is not the next of its message, is an error of
the connection, as AMQP demands. A sender of messages can cause none of these: content headers may
have any size. A broker neither splits nor checks them, and what it adds to a message, such as
x-death, can make them larger than a frame may be; senders of other protocols than AMQP 0-9-1 can
too. Of a content header that is longer than KEPT_HEADER_BYTES, only the beginning is kept.

What is kept between two calls is less than one frame, and for each channel the beginning of one
message, up to the bytes of its body that the channel keeps. The layouts are those of AMQP 0-9-1,
sections 1.8.3 and 4.2.
"""

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from saga_engine.amqp.tolerant_decoding import decode_short_text

FRAME_PREFIX: Final = struct.Struct(">BHI")
PREFIX_BYTES: Final = FRAME_PREFIX.size
FRAME_END: Final = 0xCE
OVERHEAD_BYTES: Final = PREFIX_BYTES + 1
"""The bytes of a frame besides its payload."""

LEFT_TO_AIORMQ: Final = -1
"""Stands for the most bytes of a body that are kept: aiormq reads the frames of the channel."""

DEFAULT_FRAME_MAX: Final = 131_072
"""Bytes of a frame that are always accepted, and the most before a frame_max is agreed on."""

KEPT_HEADER_BYTES: Final = 2 * DEFAULT_FRAME_MAX
"""
The most bytes of a content header that are kept: what a sender may send by default, and as much
again for what the broker adds. It is more than `max_header_bytes` can be, so a message whose header
was cut is one with too many bytes of headers. To decode as many bytes takes up to 0.3 seconds.
"""

_METHOD, _HEADER, _BODY, _HEARTBEAT = 1, 2, 3, 8
_FRAME_TYPES = frozenset((_METHOD, _HEADER, _BODY, _HEARTBEAT))
_EMPTY_FRAME_TYPES = frozenset((_HEARTBEAT,))
_ARGUMENTS = PREFIX_BYTES + 4
"""Where the arguments of a method begin in its frame, after the numbers of class and method."""
_DELIVER, _RETURN, _ACK, _NACK = (struct.pack(">HH", 60, method) for method in (60, 50, 80, 120))
_READ_METHODS = frozenset((_DELIVER, _RETURN, _ACK, _NACK))
_OPEN_OK = struct.pack(">HH", 20, 11)
_CONFIRM = struct.Struct(">qB")
_CONFIRM_FRAME_BYTES = _ARGUMENTS + _CONFIRM.size + 1
_MIN_RETURN_FRAME_BYTES = _ARGUMENTS + 3
_DELIVERY_TAG = struct.Struct(">qB")
_BODY_SIZE = struct.Struct(">Q")
_BODY_SIZE_AT = PREFIX_BYTES + 4
_MIN_HEADER_FRAME_BYTES = _BODY_SIZE_AT + _BODY_SIZE.size + 1


class Confirm(NamedTuple):
    """A basic.ack (`acknowledged`) or a basic.nack; `multiple` is about all tags up to this one."""

    channel: int
    delivery_tag: int
    multiple: bool
    acknowledged: bool


class Deliver(NamedTuple):
    """The arguments of basic.deliver, as `tolerant_decoding` decodes them."""

    consumer_tag: str
    delivery_tag: int
    redelivered: bool
    exchange: str
    routing_key: str


class Content:
    """
    A message that arrived on a channel.

    `deliver` is None if the message was returned. `method_frame` and `header_frame` are whole
    frames. `body_size` is the length in bytes that the header says; `body` has fewer if the channel
    keeps fewer.
    """

    __slots__ = (
        "_body_parts",
        "_room",
        "_unread_bytes",
        "body_size",
        "channel",
        "deliver",
        "header_frame",
        "method_frame",
    )

    def __init__(
        self, channel: int, deliver: Deliver | None, method_frame: bytes, kept_body_bytes: int
    ) -> None:
        self.channel = channel
        self.deliver = deliver
        self.method_frame = method_frame
        self.header_frame = b""
        self.body_size = 0
        self._body_parts: list[bytes] = []
        self._room = kept_body_bytes
        self._unread_bytes = 0

    @property
    def body(self) -> bytes:
        """The first bytes of the body."""
        return b"".join(self._body_parts)

    def add_header(self, frame: bytes) -> bool:
        """Add the frame of the content header; return whether the message is complete."""
        self.header_frame = frame
        if len(frame) >= _MIN_HEADER_FRAME_BYTES:
            (self.body_size,) = _BODY_SIZE.unpack_from(frame, _BODY_SIZE_AT)
        self._unread_bytes = self.body_size
        return not self.body_size

    def add_body(self, part: bytes) -> bool:
        """Add a part of the body; return whether the message is complete."""
        self._unread_bytes -= len(part)
        if self._room > 0:
            self._body_parts.append(part[: self._room])
            self._room -= len(part)
        return self._unread_bytes <= 0


Received = Content | Confirm | bytes
"""A message, a confirm, or the bytes of frames that are left to aiormq."""


class _FrameError(Exception):
    """The connection cannot be used any more, for the reason in the text."""


class ContentFrames:
    """
    The frames of one connection.

    Args:
        kept_body_bytes: the most bytes of a body that the channel of this number keeps, or
            LEFT_TO_AIORMQ; called for each message and each confirm.
        frame_max: the most bytes of a frame that the handshake has agreed on, 0 for no limit, or
            None before the end of the handshake, as long as aiormq explains what is malformed.
    """

    def __init__(
        self, kept_body_bytes: Callable[[int], int], frame_max: Callable[[], int | None]
    ) -> None:
        self.problem = ""
        """Why no further bytes are read, in a sentence; empty as long as they are."""
        self._kept_body_bytes = kept_body_bytes
        self._frame_max = frame_max
        self._incomplete: dict[int, Content] = {}
        self._left_channels: set[int] = set()
        self._rest = bytearray()
        self._needed_bytes = 0
        self._unkept_bytes = 0
        self._ended = False

    def feed(self, data: bytes) -> list[Received]:
        """Add bytes that arrived; return what is complete, in the order of its last frame."""
        if self._ended:
            return [] if self.problem else [data]
        received: list[Received] = []
        if self._unkept_bytes:
            data = self._drop_unkept(data)
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed_bytes:
                return received
            data, self._rest = bytes(self._rest), bytearray()
        try:
            self._rest += self._read_frames(data, received)
        except _FrameError as error:
            self.problem, self._ended = str(error), True
        return received

    def take_rest(self) -> bytes:
        """Remove and return the bytes of a frame that has not arrived as a whole."""
        rest, self._rest = bytes(self._rest), bytearray()
        return rest

    def _read_frames(self, data: bytes, received: list[Received]) -> bytes:
        """Read the frames that are whole; return the bytes after them."""
        start, size = 0, len(data)
        self._needed_bytes = OVERHEAD_BYTES
        while size - start >= OVERHEAD_BYTES:
            frame_type, channel, length = FRAME_PREFIX.unpack_from(data, start)
            end = start + OVERHEAD_BYTES + length
            is_frame = frame_type in (_FRAME_TYPES if length else _EMPTY_FRAME_TYPES)
            if is_frame and length > DEFAULT_FRAME_MAX - OVERHEAD_BYTES:
                self._check_size(frame_type, end - start)
                if frame_type == _HEADER and length > KEPT_HEADER_BYTES:
                    if size - start < PREFIX_BYTES + KEPT_HEADER_BYTES:
                        self._needed_bytes = PREFIX_BYTES + KEPT_HEADER_BYTES
                        break
                    data = self._shorten_header(data[start:], channel, length)
                    start, size = 0, len(data)
                    continue
            if is_frame and end > size:
                self._needed_bytes = end - start
                break
            if not is_frame or data[end - 1] != FRAME_END:
                if self._frame_max() is not None:
                    raise _FrameError("the broker sent a malformed frame")
                self._ended = True
                received.append(data[start:])
                return b""
            self._read_frame(frame_type, channel, data[start:end], received)
            start = end
        return data[start:]

    def _shorten_header(self, data: bytes, channel: int, length: int) -> bytes:
        """Make a shorter frame of a content header at the start of `data`."""
        self._unkept_bytes = length - KEPT_HEADER_BYTES
        prefix = FRAME_PREFIX.pack(_HEADER, channel, KEPT_HEADER_BYTES)
        kept_end = PREFIX_BYTES + KEPT_HEADER_BYTES
        return prefix + data[PREFIX_BYTES:kept_end] + self._drop_unkept(data[kept_end:])

    def _drop_unkept(self, data: bytes) -> bytes:
        dropped_bytes = min(len(data), self._unkept_bytes)
        self._unkept_bytes -= dropped_bytes
        return data[dropped_bytes:]

    def _check_size(self, frame_type: int, size: int) -> None:
        frame_max = self._frame_max()
        if frame_max is None and size > DEFAULT_FRAME_MAX:
            raise _FrameError(
                f"the broker sent a frame of {size} bytes before the end of the handshake;"
                f" {DEFAULT_FRAME_MAX} are accepted"
            )
        if frame_max and frame_type != _HEADER and size > frame_max:
            raise _FrameError(
                f"the broker sent a frame of {size} bytes; {frame_max} were agreed on"
            )

    def _read_frame(
        self, frame_type: int, channel: int, frame: bytes, received: list[Received]
    ) -> None:
        if frame_type == _METHOD:
            self._incomplete.pop(channel, None)
        content = self._incomplete.get(channel)
        if content is None:
            if frame_type != _METHOD or not self._read_method(channel, frame, received):
                received.append(frame)
            return
        is_body = frame_type == _BODY
        in_order = is_body if content.header_frame else frame_type == _HEADER
        if not in_order:
            raise _FrameError(f"the broker sent a frame out of order on channel {channel}")
        if content.add_body(frame[PREFIX_BYTES:-1]) if is_body else content.add_header(frame):
            del self._incomplete[channel]
            received.append(content)

    def _read_method(self, channel: int, frame: bytes, received: list[Received]) -> bool:
        """Read the frame of a method; return whether it is one of a message or a confirm."""
        method = frame[PREFIX_BYTES:_ARGUMENTS]
        if method == _OPEN_OK:
            self._left_channels.discard(channel)
        if method not in _READ_METHODS or channel in self._left_channels:
            return False
        kept_body_bytes = self._kept_body_bytes(channel)
        if kept_body_bytes == LEFT_TO_AIORMQ:
            return False
        if method == _DELIVER and (deliver := _read_deliver(frame)):
            self._incomplete[channel] = Content(channel, deliver, frame, kept_body_bytes)
        elif method == _RETURN and len(frame) >= _MIN_RETURN_FRAME_BYTES:
            self._incomplete[channel] = Content(channel, None, frame, kept_body_bytes)
        elif method in (_ACK, _NACK) and len(frame) == _CONFIRM_FRAME_BYTES:
            tag, bits = _CONFIRM.unpack_from(frame, _ARGUMENTS)
            received.append(Confirm(channel, tag, bool(bits & 1), method == _ACK))
        else:
            self._left_channels.add(channel)
            return False
        return True


def _read_deliver(frame: bytes) -> Deliver | None:
    """Read basic.deliver; None if the lengths in it do not add up to that of the frame."""
    try:
        tag_at = _ARGUMENTS + 1 + frame[_ARGUMENTS]
        exchange_at = tag_at + _DELIVERY_TAG.size
        key_at = exchange_at + 1 + frame[exchange_at]
        end = key_at + 1 + frame[key_at]
    except IndexError:
        return None
    if end != len(frame) - 1:
        return None
    tag, bits = _DELIVERY_TAG.unpack_from(frame, tag_at)
    return Deliver(
        decode_short_text(frame[_ARGUMENTS + 1 : tag_at]),
        tag,
        bool(bits & 1),
        decode_short_text(frame[exchange_at + 1 : key_at]),
        decode_short_text(frame[key_at + 1 : end]),
    )
