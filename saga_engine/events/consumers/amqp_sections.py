"""
The sections of a message of AMQP 1.0, of any sender: what a consumer needs of them.

Everything else is passed over by its size. A count in a message is not trusted: lists and maps end
with their bytes, and nothing is made of the elements of an array.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from struct import error, unpack_from

_CONTENT_TYPE, _CONTENT_ENCODING = 6, 7
"""Places in the list of properties."""

_NOT_AMQP = "It is not a message of AMQP 1.0."

_DESCRIBED = 0x00
_SMALL_ULONG, _ULONG = 0x53, 0x80
_BINARIES, _TEXTS = (0xA0, 0xB0), (0xA1, 0xB1, 0xA3, 0xB3)  # a text is a string or a symbol
_LISTS, _MAPS = (0x45, 0xC0, 0xD0), (0xC1, 0xD1)
_CONSTANTS = {0x41: "True", 0x42: "False", 0x43: "0", 0x44: "0"}
_NUMBERS = {
    0x50: ">B",
    0x51: ">b",
    0x52: ">B",
    0x53: ">B",
    0x54: ">b",
    0x55: ">b",
    0x56: ">?",
    0x60: ">H",
    0x61: ">h",
    0x70: ">I",
    0x71: ">i",
    0x72: ">f",
    0x80: ">Q",
    0x81: ">q",
    0x82: ">d",
    0x83: ">q",
}
_FIXED_SIZES = {0x4: 0, 0x5: 1, 0x6: 2, 0x7: 4, 0x8: 8, 0x9: 16}
_SIZE_BYTES = {0xA: 1, 0xB: 4, 0xC: 1, 0xD: 4, 0xE: 1, 0xF: 4}
"""By the first digit of a constructor: the size of its value, or of the number that says it."""


class NotAmqp(ValueError):
    """A message cannot be read; the text says why, in a sentence."""


@dataclass(slots=True, kw_only=True)
class StreamMessage:
    """
    What a consumer needs of a message.

    Args:
        properties: the names and values of its application properties; a value that is neither a
            text nor a number is left out.
        content_type: of the body; empty if it has none.
        content_encoding: of the body; empty if it has none.
        data: its data sections; together they are the body.
        has_value: whether it has a body of another kind, a value of AMQP.
    """

    properties: list[tuple[str, bytes | str]] = field(default_factory=list)
    content_type: bytes = b""
    content_encoding: bytes = b""
    data: list[bytes] = field(default_factory=list)
    has_value: bool = False


@dataclass(frozen=True, slots=True)
class _Value:
    """A value in a message: its constructor, and where its bytes are."""

    constructor: int
    start: int
    end: int


def read_sections(encoded: bytes, max_properties: int) -> StreamMessage:
    """
    Read a message; its length limits the time and the memory that this takes.

    Raises:
        NotAmqp: it is not a message of AMQP 1.0, or has more application properties.
    """
    message = StreamMessage()
    at = 0
    try:
        while at < len(encoded):
            section, value = _section(encoded, at)
            _add(message, encoded, section, value, max_properties)
            at = value.end
    except (IndexError, error, ValueError) as problem:
        if isinstance(problem, NotAmqp):
            raise
        raise NotAmqp(_NOT_AMQP) from None
    return message


def _section(encoded: bytes, at: int) -> tuple[int, _Value]:
    """Read the number of the section that begins at a place, and find its value."""
    number = _find(encoded, at + 1)
    if encoded[at] != _DESCRIBED or number.constructor not in (_SMALL_ULONG, _ULONG):
        raise NotAmqp(_NOT_AMQP)
    return int.from_bytes(encoded[number.start : number.end]), _find(encoded, number.end)


def _add(
    message: StreamMessage, encoded: bytes, section: int, value: _Value, max_properties: int
) -> None:
    match section:
        case 0x73:
            _require(value, _LISTS)
            elements = _elements(encoded, value)
            found = [*islice(elements, _CONTENT_TYPE, _CONTENT_ENCODING + 1), None, None]
            message.content_type = _text(encoded, found[0])
            message.content_encoding = _text(encoded, found[1])
        case 0x74:
            message.properties += _properties(encoded, value, max_properties)
        case 0x75:
            _require(value, _BINARIES)
            message.data.append(encoded[value.start : value.end])
        case 0x76 | 0x77:
            message.has_value = True
        case 0x70 | 0x71 | 0x72 | 0x78:
            return  # for brokers
        case _:
            raise NotAmqp(_NOT_AMQP)


def _properties(
    encoded: bytes, value: _Value, max_properties: int
) -> Iterator[tuple[str, bytes | str]]:
    _require(value, _MAPS)
    elements = _elements(encoded, value)
    for number, (name, content) in enumerate(zip(elements, elements, strict=True)):
        _require(name, _TEXTS)
        if number >= max_properties:
            raise NotAmqp(
                f"It has more than {max_properties} application properties, which max_header_count"
                " allows."
            )
        simple = _simple(encoded, content)
        if simple is not None:
            yield encoded[name.start : name.end].decode("utf-8", "replace"), simple


def _require(value: _Value, constructors: tuple[int, ...]) -> None:
    if value.constructor not in constructors:
        raise NotAmqp(_NOT_AMQP)


def _elements(encoded: bytes, value: _Value) -> Iterator[_Value]:
    """Find the elements of a list or a map, one after the other."""
    at = value.start + _SIZE_BYTES.get(value.constructor >> 4, 0)  # after their number
    while at < value.end:
        element = _find(encoded, at)
        yield element
        at = element.end
    if at > value.end:
        raise NotAmqp(_NOT_AMQP)


def _simple(encoded: bytes, value: _Value) -> bytes | str | None:
    """Return a value that is a text, bytes or a number; None for another one."""
    if value.constructor in _BINARIES or value.constructor in _TEXTS:
        return encoded[value.start : value.end]
    if value.constructor in _NUMBERS:
        return str(*unpack_from(_NUMBERS[value.constructor], encoded, value.start))
    return _CONSTANTS.get(value.constructor)


def _text(encoded: bytes, value: _Value | None) -> bytes:
    is_text = value is not None and value.constructor in _TEXTS
    return encoded[value.start : value.end] if value and is_text else b""


def _find(encoded: bytes, at: int) -> _Value:
    """Find the value at a place, without its elements."""
    start, values = at, 1
    constructor, begin = _DESCRIBED, at
    while values:
        constructor = encoded[at]
        at += 1
        if constructor == _DESCRIBED:
            values += 1  # its descriptor comes first
            continue
        begin, end = _extent(encoded, constructor, at)
        values, at = values - 1, end
    if encoded[start] == _DESCRIBED:
        return _Value(_DESCRIBED, start, at)
    return _Value(constructor, begin, at)


def _extent(encoded: bytes, constructor: int, at: int) -> tuple[int, int]:
    """Where the bytes of a value begin, after its size, and where they end."""
    kind = constructor >> 4
    size_bytes = _SIZE_BYTES.get(kind, 0)
    begin = at + size_bytes
    size = int.from_bytes(encoded[at:begin]) if size_bytes else _FIXED_SIZES.get(kind, -1)
    if size < 0 or begin + size > len(encoded):
        raise NotAmqp(_NOT_AMQP)
    return begin, begin + size
