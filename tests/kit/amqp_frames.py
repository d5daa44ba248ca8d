"""The frames that a broker sends for messages and confirms, as bytes, and streams of them."""

import struct
from typing import Any

import pamqp.frame
from hypothesis import strategies as st

from tests.kit.amqp_properties import PROPERTIES, content_header, longstr, shortstr
from tests.kit.raw_amqp import BODY, FRAME_END, HEADER, HEARTBEAT, METHOD

BASIC, DELIVER, RETURN, ACK, NACK = 60, 60, 50, 80, 120


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + FRAME_END


def method(channel: int, number: int, arguments: bytes) -> bytes:
    return frame(METHOD, channel, struct.pack(">HH", BASIC, number) + arguments)


def deliver(channel: int, tag: int, *, key: bytes = b"k", consumer: bytes = b"c") -> bytes:
    """basic.deliver; each second one is redelivered."""
    arguments = shortstr(consumer) + struct.pack(">QB", tag, tag % 2) + shortstr(b"e")
    return method(channel, DELIVER, arguments + shortstr(key))


def returned(channel: int) -> bytes:
    """basic.return"""
    arguments = struct.pack(">H", 312) + shortstr(b"NO_ROUTE") + shortstr(b"e") + shortstr(b"k")
    return method(channel, RETURN, arguments)


def confirm(channel: int, tag: int, *, multiple: bool = False, number: int = ACK) -> bytes:
    """basic.ack or basic.nack"""
    return method(channel, number, struct.pack(">QB", tag, multiple))


def long_ack(channel: int) -> bytes:
    """An ack with an octet too many: pamqp reads it, and the fast reader leaves it to aiormq."""
    return method(channel, ACK, struct.pack(">QB", 0, 0) + b"\0")


def long_deliver(channel: int, tag: int) -> bytes:
    """A message whose basic.deliver has an octet too many, which has the same effect."""
    arguments = deliver(channel, tag)[11:-1] + b"\0"
    return method(channel, DELIVER, arguments) + message(channel, tag)[len(deliver(channel, tag)) :]


def decoded(data: bytes) -> Any:
    """A frame as pamqp reads it."""
    return pamqp.frame.unmarshal(data)[2]


def heartbeat() -> bytes:
    return frame(HEARTBEAT, 0, b"")


def content(channel: int, properties: bytes, body: bytes, part_bytes: int = 100) -> list[bytes]:
    """A content header, given from its flags on, and the frames of the body."""
    head = content_header(0, b"", len(body))[:-2] + properties
    parts = [body[start : start + part_bytes] for start in range(0, len(body), part_bytes)]
    return [frame(HEADER, channel, head), *(frame(BODY, channel, part) for part in parts)]


def message(channel: int, tag: int, body: bytes = b"{}", **named: bytes) -> bytes:
    """A message without properties."""
    return deliver(channel, tag, **named) + b"".join(content(channel, b"\0\0", body))


_VALUES = (
    st.binary(max_size=20).map(lambda text: b"S" + longstr(text))
    | st.text(max_size=10).map(lambda text: b"S" + longstr(text.encode("utf-8", "replace")))
    | st.binary(min_size=4, max_size=4).map(lambda value: b"I" + value)
    | st.binary(min_size=8, max_size=8).map(lambda value: b"l" + value)
    | st.binary(min_size=8, max_size=8).map(lambda value: b"T" + value)
    | st.binary(min_size=8, max_size=8).map(lambda value: b"d" + value)
    | st.binary(max_size=1).map(lambda value: b"t" + value)
    | st.sampled_from([b"V", b"L" + b"\xff" * 8, b"Z", b"A" + longstr(b"t\x01t\x00")])
)
_NAMES = st.sampled_from([b"saga-run-id", b"x-delivery-count", b"x-undecodable", b"\xff", b"a\0b"])
_ENTRIES = st.tuples(_NAMES | st.binary(max_size=5), _VALUES).map(
    lambda entry: shortstr(entry[0]) + entry[1]
)
_TABLES = st.lists(_ENTRIES, max_size=5).map(b"".join).map(longstr) | st.sampled_from(
    [table for _, table in PROPERTIES.values()]
)
_TEXTS = st.text(max_size=20).map(lambda text: shortstr(text.encode("utf-8", "replace")[:200]))
_GARBAGE = st.binary(max_size=20).map(shortstr)
_TIMES = st.integers(0, 2**33).map(lambda seconds: struct.pack(">Q", seconds)) | st.binary(
    min_size=8, max_size=8
)
_OCTETS = st.binary(min_size=1, max_size=1)
_IN_ORDER = [
    _TEXTS | _GARBAGE,  # content_type
    _TEXTS | _GARBAGE,  # content_encoding
    _TABLES,
    _OCTETS,  # delivery_mode
    _OCTETS,  # priority
    *[_TEXTS | _GARBAGE] * 4,  # correlation_id, reply_to, expiration, message_id
    _TIMES,
    *[_TEXTS | _GARBAGE] * 4,  # type, user_id, app_id, cluster_id
]


@st.composite
def encoded_properties(draw):
    """Flags and properties: those that programs send, hostile ones, and some that are garbage."""
    flags = draw(st.integers(0, 2**14 - 1)) << 2
    present = [each for place, each in enumerate(_IN_ORDER) if flags & 1 << (15 - place)]
    values = b"".join(map(draw, present))
    whole = struct.pack(">H", flags) + values
    damage = draw(st.sampled_from(["none"] * 6 + ["cut", "longer", "flags", "garbage"]))
    if damage == "cut":
        return whole[: draw(st.integers(0, len(whole)))]
    if damage == "longer":
        return whole + draw(st.binary(min_size=1, max_size=5))
    if damage == "flags":
        return struct.pack(">H", draw(st.integers(0, 0xFFFF))) + values
    return draw(st.binary(max_size=60)) if damage == "garbage" else whole


@st.composite
def messages(draw, channel: int, tag: int):
    """The frames of a message."""
    key, consumer = draw(st.binary(max_size=20)), draw(st.sampled_from([b"c", b"other", b"\xff\0"]))
    body = draw(st.sampled_from([b"", b"x", b"0123456789", b"y" * 250]))
    part_bytes = draw(st.sampled_from([3, 100]))
    properties = draw(encoded_properties())
    first = deliver(channel, tag, key=key, consumer=consumer)
    return [first, *content(channel, properties, body, part_bytes)]


@st.composite
def interleaved(draw, sequences: list[list[bytes]]):
    """The frames of all sequences; those of each one stay in their order."""
    order = [number for number, each in enumerate(sequences) for _ in each]
    draw(st.randoms(use_true_random=False)).shuffle(order)
    remaining = [iter(each) for each in sequences]
    return [next(remaining[number]) for number in order]


@st.composite
def split(draw, stream: bytes):
    """The same bytes as they may arrive, in any pieces."""
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    return [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True) if a < b]
