"""
Decoders that never raise on what a peer sent.

pamqp raises on a timestamp after the year 9999, on text that is not UTF-8 and on deep header
tables. aiormq then loses the connection, the broker delivers the message again, and so on for ever,
with every innocent neighbour. Here each property of a message decodes to something, and a header
table that cannot be read becomes one that says so, so that the message can be set aside.

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
from saga_engine.saga.vocabulary import Json

UNDECODABLE = "x-undecodable"
"""The only header of a message whose header table could not be read."""

TABLE_BYTES = 32_768
"""Twice what the contract allows; pamqp's time to read a table grows with its size squared."""

DEEPEST = 32
"""Tables within tables that are kept; what lies deeper becomes an ellipsis."""

_HOSTILE_FRAME = (
    b"\x02\x00\x01\x00\x00\x00\x28\x00\x3c\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05\x26\x40"
    b"\x00\x00\x00\x09\x02\xff\xffS\x00\x00\x00\x01v\x02\xc3\x28\x01\xff"
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xce"
)
"""A header frame that breaks pamqp four times: header key, correlation id, reply_to, timestamp."""

_MOVED = (
    "This pamqp is another one than saga-engine was written for: its decoders could not be"
    " replaced. Install the version that saga-engine's requirements name."
)

_stock_table = decode.field_table
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
    ) != (5, "\ufffd(", {UNDECODABLE: True}):
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


def _table(value: bytes) -> tuple[int, Any]:
    end = 4 + int.from_bytes(value[:4], "big")
    if end <= TABLE_BYTES:
        try:
            return _stock_table(value)
        except Exception:  # noqa: BLE001 - pamqp raises ValueError, RecursionError and more
            return end, {UNDECODABLE: True}
    return end, {UNDECODABLE: True}


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
