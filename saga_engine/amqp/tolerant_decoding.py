"""
Decoders that never raise on what a peer sent.

pamqp raises on a timestamp after the year 9999, on text that is not UTF-8 and on deep header
tables. aiormq then loses the connection, the broker delivers the message again, and so on for ever,
with every innocent neighbour. Here each property of a message decodes to something. A header table
is read in a time that grows with its size and no faster; what of it cannot be read is left out and
the table says so, so that the message can be set aside with the rest, `x-death` most of all.

`install` must run before the first connection. It tries itself out and refuses to go on when pamqp
has moved the places it replaces; pamqp is pinned for that reason.
"""

from datetime import datetime
from decimal import Decimal
from math import isfinite
from typing import Any

import pamqp.frame
from pamqp import decode
from pamqp.header import ContentHeader

from saga_engine.errors import ConfigurationError
from saga_engine.vocabulary import Json

UNDECODABLE = "x-undecodable"
"""A header of ours beside those of a table of which something could not be read."""

DEEPEST = 32
"""Tables within tables that are read; what lies deeper becomes an ellipsis."""

_HOSTILE_FRAME = (
    b"\x02\x00\x01\x00\x00\x00\x28\x00\x3c\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05\x26\x40"
    b"\x00\x00\x00\x09\x02\xff\xffS\x00\x00\x00\x01v\x02\xc3\x28\x01\xff"
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xce"
)
"""A header frame that breaks pamqp four times: header key, correlation id, reply_to, timestamp."""

_SIZES = {
    **dict.fromkeys((b"V", b"\x00"), 0),
    **dict.fromkeys((b"t", b"b", b"B"), 1),
    **dict.fromkeys((b"s", b"u"), 2),
    **dict.fromkeys((b"I", b"i", b"f"), 4),
    **dict.fromkeys((b"L", b"l", b"d", b"T"), 8),
    b"D": 5,
}
"""Bytes of a value in a table, by its type; RabbitMQ's reading of AMQP 0-9-1, as in pamqp."""
_COUNTED = (b"S", b"x", b"A", b"F")
"""Those that begin with their length, 4 bytes."""

_MOVED = (
    "This pamqp is another one than saga-engine was written for: its decoders could not be"
    " replaced. Install the version that saga-engine's requirements name."
)

_stock_timestamp = decode.timestamp
_stock_octet = decode.octet
_stock_header = ContentHeader.unmarshal


def install() -> None:
    """
    Replace pamqp's decoders; a second call changes nothing.

    Raises:
        ConfigurationError: pamqp is another version than the one this was written for.
    """
    decode.METHODS.update(table=_table, timestamp=_timestamp, shortstr=_shortstr, octet=_octet)
    decode.TABLE_MAPPING[b"T"] = _timestamp
    ContentHeader.unmarshal = _header  # type: ignore[method-assign]  # that is the patch
    try:
        _, _, frame = pamqp.frame.unmarshal(_HOSTILE_FRAME)
    except Exception as error:
        raise ConfigurationError(_MOVED) from error
    if not isinstance(frame, ContentHeader) or (
        frame.body_size,
        frame.properties.correlation_id,
        frame.properties.headers,
    ) != (5, "\ufffd(", {"\ufffd\ufffd": "v", UNDECODABLE: True}):
        raise ConfigurationError(_MOVED)


def plain(value: Any, depth: int = 0) -> Json:
    """What a header holds, as JSON that PostgreSQL can store; never raises."""
    match value:
        case str():
            found: Json = value.replace("\0", "\ufffd")
        case None | bool() | int():
            found = value
        case float():
            found = value if isfinite(value) else str(value)
        case bytes() | bytearray():
            found = plain(value.decode("utf-8", "backslashreplace"))
        case list() if depth < DEEPEST:
            found = [plain(item, depth + 1) for item in value]
        case dict() if depth < DEEPEST:
            found = {
                str(key).replace("\0", "\ufffd"): plain(item, depth + 1)
                for key, item in value.items()
            }
        case _:
            found = str(value) if isinstance(value, datetime | Decimal) else "…"
    return found


def _header(self: ContentHeader, data: bytes) -> None:
    try:
        _stock_header(self, data)
    except Exception:  # noqa: BLE001 - flags cut short; whatever it is, only this message is bad
        self.properties.headers = {UNDECODABLE: True}


class _Unread(str):
    """What stands where something could not be read."""

    __slots__ = ()


_UNREAD = _Unread("…")


class Table(dict[str, Any]):
    """A header table; `size` is its length in bytes as it was sent."""

    size = 0


class _CutShortError(Exception):
    """Nothing that follows in this table can be found."""


def _table(value: bytes) -> tuple[int, Any]:
    end = 4 + int.from_bytes(value[:4], "big")
    table = _entries(value[4:end], 0)
    table.size = end
    if end > len(value):
        table[UNDECODABLE] = True
    return end, table


def _entries(data: bytes, depth: int) -> Table:
    found = Table()
    place = 0
    try:
        while place < len(data):
            name_end = place + 1 + data[place]
            kind, start, end = _extent(data, name_end)
            name, whole = _name(data[place + 1 : name_end])
            found[name] = _value(kind, data[start:end], depth + 1)
            if not whole or _marked(found[name]):
                found[UNDECODABLE] = True
            place = end
    except _CutShortError:
        found[UNDECODABLE] = True
    return found


def _items(data: bytes, depth: int) -> list[Any]:
    found = []
    place = 0
    try:
        while place < len(data):
            kind, start, place = _extent(data, place)
            found.append(_value(kind, data[start:place], depth + 1))
    except _CutShortError:
        found.append(_UNREAD)
    return found


def _extent(data: bytes, place: int) -> tuple[bytes, int, int]:
    """The type of the value at `place`, and where its bytes begin and end."""
    kind, start = data[place : place + 1], place + 1
    size = _SIZES.get(kind, -1)
    if kind in _COUNTED:
        size = int.from_bytes(data[start : start + 4], "big")
        start += 4
    end = start + size
    if size < 0 or end > len(data):
        raise _CutShortError
    return kind, start, end


def _name(data: bytes) -> tuple[str, bool]:
    try:
        return data.decode(), True
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace"), False


def _value(kind: bytes, data: bytes, depth: int) -> Any:
    if kind in (b"F", b"A") and depth > DEEPEST:
        return _UNREAD
    match kind:
        case b"F":
            return _entries(data, depth)
        case b"A":
            return _items(data, depth)
        case b"S":
            return _text(data)
        case b"x":
            return data
        case _:
            _, value = decode.TABLE_MAPPING[kind](data)
            return value


def _text(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _marked(value: Any) -> bool:
    """Whether something in a value could not be read."""
    if isinstance(value, list):
        return any(map(_marked, value))
    return isinstance(value, _Unread) or (isinstance(value, Table) and UNDECODABLE in value)


def _timestamp(value: bytes) -> tuple[int, Any]:
    try:
        return _stock_timestamp(value)
    except Exception:  # noqa: BLE001 - ValueError, OverflowError and OSError, by the year
        return 8, None


def _shortstr(value: bytes) -> tuple[int, str]:
    end = 1 + value[0] if value else 0
    return end, value[1:end].decode("utf-8", "replace").replace("\0", "\ufffd")


def _octet(value: bytes) -> tuple[int, Any]:
    return _stock_octet(value) if value else (0, None)
