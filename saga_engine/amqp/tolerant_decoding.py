"""
Decoders for pamqp that raise no error on what a peer sent.

pamqp raises an error on a timestamp after the year 9999, on text that is not UTF-8 and on deep
header tables. aiormq then closes the connection and the broker delivers the message again, without
end: a poison message that also returns every other delivery. These decoders give each property some
value. A header table takes time in proportion to its size; what cannot be read is left out and
marked, so that the message can be dead-lettered with its other headers, above all `x-death`.

`install_decoders` must run before the first connection. It tests the decoders and raises an error
when pamqp no longer has the functions that it replaces, which is why pamqp is pinned.
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

UNDECODABLE_HEADER = "x-undecodable"
"""A header that is added to a table of which a part could not be read."""

MAX_TABLE_DEPTH = 32
"""The depth of nested tables that is read; deeper values become an ellipsis."""

_HOSTILE_FRAME = (
    b"\x02\x00\x01\x00\x00\x00\x28\x00\x3c\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05\x26\x40"
    b"\x00\x00\x00\x09\x02\xff\xffS\x00\x00\x00\x01v\x02\xc3\x28\x01\xff"
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xce"
)
"""A header frame on which pamqp fails: header key, correlation id, reply_to and timestamp."""

_FIXED_SIZES = {
    **dict.fromkeys((b"V", b"\x00"), 0),
    **dict.fromkeys((b"t", b"b", b"B"), 1),
    **dict.fromkeys((b"s", b"u"), 2),
    **dict.fromkeys((b"I", b"i", b"f"), 4),
    **dict.fromkeys((b"L", b"l", b"d", b"T"), 8),
    b"D": 5,
}
"""Bytes of a value in a table, by its type code, as RabbitMQ reads AMQP 0-9-1."""
_LENGTH_PREFIXED_TYPES = (b"S", b"x", b"A", b"F")
"""Type codes of values that start with their length in 4 bytes."""

_UNSUPPORTED_PAMQP = (
    "saga-engine does not support this version of pamqp: its decoders could not be replaced."
    " Install the version that saga-engine requires."
)

_original_timestamp = decode.timestamp
_original_octet = decode.octet
_original_header = ContentHeader.unmarshal


def install_decoders() -> None:
    """
    Replace pamqp's decoders; a second call changes nothing.

    Raises:
        ConfigurationError: this version of pamqp is not supported.
    """
    decode.METHODS.update(
        table=_decode_table,
        timestamp=_decode_timestamp,
        shortstr=_decode_shortstr,
        octet=_decode_octet,
    )
    decode.TABLE_MAPPING[b"T"] = _decode_timestamp
    ContentHeader.unmarshal = _unmarshal_header  # type: ignore[method-assign]  # that is the patch
    try:
        _, _, frame = pamqp.frame.unmarshal(_HOSTILE_FRAME)
    except Exception as error:
        raise ConfigurationError(_UNSUPPORTED_PAMQP) from error
    if not isinstance(frame, ContentHeader) or (
        frame.body_size,
        frame.properties.correlation_id,
        frame.properties.headers,
    ) != (5, "\ufffd(", {"\ufffd\ufffd": "v", UNDECODABLE_HEADER: True}):
        raise ConfigurationError(_UNSUPPORTED_PAMQP)


def decode_short_text(data: bytes) -> str:
    """Decode a name, a key or the text of a property; what cannot be stored is replaced."""
    return data.decode("utf-8", "replace").replace("\0", "\ufffd")


def to_json(value: Any, depth: int = 0) -> Json:
    """Convert the value of a header to JSON that PostgreSQL can store; it raises no error."""
    match value:
        case str():
            converted: Json = value.replace("\0", "\ufffd")
        case None | bool() | int():
            converted = value
        case float():
            converted = value if isfinite(value) else str(value)
        case bytes() | bytearray():
            converted = to_json(value.decode("utf-8", "backslashreplace"))
        case list() if depth < MAX_TABLE_DEPTH:
            converted = [to_json(item, depth + 1) for item in value]
        case dict() if depth < MAX_TABLE_DEPTH:
            converted = {
                str(key).replace("\0", "\ufffd"): to_json(item, depth + 1)
                for key, item in value.items()
            }
        case _:
            converted = str(value) if isinstance(value, datetime | Decimal) else "…"
    return converted


def _unmarshal_header(self: ContentHeader, data: bytes) -> None:
    try:
        _original_header(self, data)
    except Exception:  # noqa: BLE001 - only this message is bad
        self.properties.headers = {UNDECODABLE_HEADER: True}


class _UndecodableType(str):
    """The type of the placeholder for a value that could not be read."""

    __slots__ = ()


_UNDECODABLE_VALUE = _UndecodableType("…")


class HeaderTable(dict[str, Any]):
    """A header table; `size_bytes` is its encoded length."""

    size_bytes = 0


class _TruncatedTableError(Exception):
    """The rest of this table cannot be read."""


def _decode_table(value: bytes) -> tuple[int, Any]:
    end = 4 + int.from_bytes(value[:4], "big")
    table = _decode_entries(value[4:end], 0)
    table.size_bytes = end
    if end > len(value):
        table[UNDECODABLE_HEADER] = True
    return end, table


def _decode_entries(data: bytes, depth: int) -> HeaderTable:
    entries = HeaderTable()
    offset = 0
    try:
        while offset < len(data):
            name_end = offset + 1 + data[offset]
            type_code, start, end = _value_extent(data, name_end)
            name, is_utf8 = _decode_name(data[offset + 1 : name_end])
            entries[name] = _decode_value(type_code, data[start:end], depth + 1)
            if not is_utf8 or _has_undecodable(entries[name]):
                entries[UNDECODABLE_HEADER] = True
            offset = end
    except _TruncatedTableError:
        entries[UNDECODABLE_HEADER] = True
    return entries


def _decode_array(data: bytes, depth: int) -> list[Any]:
    items = []
    offset = 0
    try:
        while offset < len(data):
            type_code, start, offset = _value_extent(data, offset)
            items.append(_decode_value(type_code, data[start:offset], depth + 1))
    except _TruncatedTableError:
        items.append(_UNDECODABLE_VALUE)
    return items


def _value_extent(data: bytes, offset: int) -> tuple[bytes, int, int]:
    """Return the type code of the value at `offset`, and where its bytes start and end."""
    type_code, start = data[offset : offset + 1], offset + 1
    size = _FIXED_SIZES.get(type_code, -1)
    if type_code in _LENGTH_PREFIXED_TYPES:
        size = int.from_bytes(data[start : start + 4], "big")
        start += 4
    end = start + size
    if size < 0 or end > len(data):
        raise _TruncatedTableError
    return type_code, start, end


def _decode_name(data: bytes) -> tuple[str, bool]:
    try:
        return data.decode(), True
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace"), False


def _decode_value(type_code: bytes, data: bytes, depth: int) -> Any:
    if type_code in (b"F", b"A") and depth > MAX_TABLE_DEPTH:
        return _UNDECODABLE_VALUE
    match type_code:
        case b"F":
            return _decode_entries(data, depth)
        case b"A":
            return _decode_array(data, depth)
        case b"S":
            return _decode_text(data)
        case b"x":
            return data
        case _:
            _, value = decode.TABLE_MAPPING[type_code](data)
            return value


def _decode_text(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _has_undecodable(value: Any) -> bool:
    """Whether a part of a value could not be read."""
    if isinstance(value, list):
        return any(map(_has_undecodable, value))
    return isinstance(value, _UndecodableType) or (
        isinstance(value, HeaderTable) and UNDECODABLE_HEADER in value
    )


def _decode_timestamp(value: bytes) -> tuple[int, Any]:
    try:
        return _original_timestamp(value)
    except Exception:  # noqa: BLE001 - ValueError, OverflowError and OSError, by the year
        return 8, None


def _decode_shortstr(value: bytes) -> tuple[int, str]:
    end = 1 + value[0] if value else 0
    return end, decode_short_text(value[1:end])


def _decode_octet(value: bytes) -> tuple[int, Any]:
    return _original_octet(value) if value else (0, None)
