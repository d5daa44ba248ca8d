"""
Message properties, kept as the bytes that arrived.

Only what a broker needs is parsed: the expiration, the user id and the top level of the headers.
The rest is written back unchanged, so that a consumer receives malformed properties, as with
RabbitMQ. The layouts are those of AMQP 0-9-1, sections 4.2.5 and 4.2.6, the types of tables those
of RabbitMQ's errata page.
"""

import struct
from collections.abc import Mapping
from typing import Final, Self

_SHORTSTR_FIELD: Final = 0  # A length octet and that many bytes.
_TABLE_FIELD: Final = -1  # A length of four octets and that many bytes.
_FIELDS: Final = {
    "content_type": _SHORTSTR_FIELD,
    "content_encoding": _SHORTSTR_FIELD,
    "headers": _TABLE_FIELD,
    "delivery_mode": 1,
    "priority": 1,
    "correlation_id": _SHORTSTR_FIELD,
    "reply_to": _SHORTSTR_FIELD,
    "expiration": _SHORTSTR_FIELD,
    "message_id": _SHORTSTR_FIELD,
    "timestamp": 8,
    "type": _SHORTSTR_FIELD,
    "user_id": _SHORTSTR_FIELD,
    "app_id": _SHORTSTR_FIELD,
    "cluster_id": _SHORTSTR_FIELD,
}
_FLAGS: Final = {name: 1 << (15 - place) for place, name in enumerate(_FIELDS)}
_FIXED_VALUE_SIZES: Final = dict(
    zip(b"tbBsuIilLfdDTV", (1, 1, 1, 2, 2, 4, 4, 8, 8, 4, 8, 5, 8, 0), strict=True)
)
_LENGTH_PREFIXED_TYPES: Final = frozenset(b"SAFx")

EncodedTable = dict[bytes, bytes]
"""The keys of a table and its values, each with its type octet, in their order."""


class EncodedProperties:
    """The properties of one message, immutable."""

    __slots__ = ("_fields", "raw")

    def __init__(self, fields: Mapping[str, bytes], raw: bytes) -> None:
        self._fields = fields
        self.raw = raw

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """
        Parse the part of a content header that follows the body size.

        Raises:
            ValueError: the bytes do not match the flags, or a header has an unknown type.
        """
        (flags,) = struct.unpack_from(">H", raw.ljust(2, b"\x00"))
        fields, start = {}, 2
        for name, size in _FIELDS.items():
            if flags & _FLAGS[name]:
                end = start + _field_length(raw, start, size)
                fields[name] = raw[start:end]
                start = end
        if start != len(raw) or flags & 0b11:
            raise ValueError("the properties do not match their flags")
        if "headers" in fields:
            read_table(fields["headers"])
        return cls(fields, raw)

    @property
    def expiration(self) -> str | None:
        """The text of `expiration`, not validated."""
        return self._text_field("expiration")

    @property
    def user_id(self) -> str | None:
        """The text of `user_id`."""
        return self._text_field("user_id")

    @property
    def headers(self) -> EncodedTable:
        """The top level of the headers."""
        return read_table(self._fields["headers"]) if "headers" in self._fields else {}

    def with_headers(
        self, headers: EncodedTable, *, keep_expiration: bool = True
    ) -> "EncodedProperties":
        """A copy with other headers and, on request, without the expiration."""
        fields = {**self._fields, "headers": write_table(headers)}
        if not keep_expiration:
            fields.pop("expiration", None)
        present = [name for name in _FIELDS if name in fields]
        flags = sum(_FLAGS[name] for name in present)
        raw = struct.pack(">H", flags) + b"".join(fields[name] for name in present)
        return EncodedProperties(fields, raw)

    def _text_field(self, name: str) -> str | None:
        field = self._fields.get(name)
        return None if field is None else field[1:].decode("utf-8", "surrogateescape")


def read_table(raw: bytes) -> EncodedTable:
    """
    Read the top level of a table that starts with its length; the last of equal keys wins.

    Raises:
        ValueError: a value has an unknown type, or a length is wrong.
    """
    table, start, size = {}, 4, len(raw)
    while start < size:
        key_end = start + 1 + raw[start]
        end = _value_end(raw, key_end)
        table[raw[start + 1 : key_end]] = raw[key_end:end]
        start = end
    return table


def read_array(value: bytes) -> list[bytes]:
    """Read the values of an array, each with its type octet; empty if it is not an array."""
    items, start = [], 5
    while value[:1] == b"A" and start < len(value):
        end = _value_end(value, start)
        items.append(value[start:end])
        start = end
    return items


def write_table(table: EncodedTable) -> bytes:
    """Write a table that starts with its length."""
    return _with_length_prefix(
        b"".join(bytes([len(key)]) + key + value for key, value in table.items())
    )


def encode_text(text: str) -> bytes:
    """Write a long string as the value of a table."""
    return b"S" + _with_length_prefix(text.encode("utf-8", "surrogateescape"))


def encode_integer(number: int) -> bytes:
    """Write a 64-bit integer as the value of a table."""
    return b"l" + struct.pack(">q", number)


def encode_timestamp(seconds: int) -> bytes:
    """Write a time (seconds since 1970) as the value of a table."""
    return b"T" + struct.pack(">Q", seconds)


def encode_array(values: list[bytes]) -> bytes:
    """Write an array as the value of a table."""
    return b"A" + _with_length_prefix(b"".join(values))


def encode_table(table: EncodedTable) -> bytes:
    """Write a table as the value of a table."""
    return b"F" + write_table(table)


def _with_length_prefix(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def _value_end(raw: bytes, start: int) -> int:
    """The end of the value whose type octet is at `start`."""
    type_octet = raw[start] if start < len(raw) else -1
    if type_octet in _FIXED_VALUE_SIZES:
        end = start + 1 + _FIXED_VALUE_SIZES[type_octet]
    elif type_octet in _LENGTH_PREFIXED_TYPES:
        end = start + 1 + _field_length(raw, start + 1, _TABLE_FIELD)
    else:
        raise ValueError("a table has a value of an unknown type")
    if end > len(raw):
        raise ValueError("a value is longer than its table")
    return end


def _field_length(raw: bytes, start: int, size: int) -> int:
    """The size in bytes of the field at `start`, which begins with its length."""
    if size == _SHORTSTR_FIELD:
        size = 1 + int.from_bytes(raw[start : start + 1], "big")
    elif size == _TABLE_FIELD:
        size = 4 + int.from_bytes(raw[start : start + 4], "big")
    if start + size > len(raw):
        raise ValueError("a field is longer than its frame")
    return size
