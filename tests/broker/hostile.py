"""
Messages no client library would send: raw content headers, as a hostile sender writes them.

The properties are those of reliability lists: the first half ended the connection of every consumer
on pamqp, for ever.
"""

import struct


def shortstr(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def longstr(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


def nested_tables(levels: int) -> bytes:
    inner = b""
    for _ in range(levels):
        inner = shortstr(b"k") + b"F" + longstr(inner)
    return longstr(inner)


def nested_arrays(levels: int) -> bytes:
    inner = b""
    for _ in range(levels):
        inner = b"A" + longstr(inner)
    return longstr(shortstr(b"k") + inner)


def header(name: bytes, value: bytes) -> bytes:
    return longstr(shortstr(name) + value)


(
    CONTENT_TYPE,
    CONTENT_ENCODING,
    HEADERS,
    _DELIVERY_MODE,
    PRIORITY,
    CORRELATION_ID,
    REPLY_TO,
    EXPIRATION,
    MESSAGE_ID,
    TIMESTAMP,
    TYPE,
    _USER_ID,
    APP_ID,
    CLUSTER_ID,
) = (1 << (15 - place) for place in range(14))

_DEATH = shortstr(b"count") + b"l" + struct.pack(">q", 999)

PROPERTIES = {
    "timestamp 2^64-1": (TIMESTAMP, struct.pack(">Q", 2**64 - 1)),
    "timestamp 2^62": (TIMESTAMP, struct.pack(">Q", 2**62)),
    "timestamp in the year 12000": (TIMESTAMP, struct.pack(">Q", 316_516_464_000_000)),
    "message_id not UTF-8": (MESSAGE_ID, shortstr(b"\xff\xfe\x80")),
    "message_id with NUL": (MESSAGE_ID, shortstr(b"a\x00b")),
    "correlation_id not UTF-8": (CORRELATION_ID, shortstr(b"\xc3\x28")),
    "content_type not UTF-8": (CONTENT_TYPE, shortstr(b"\xff")),
    "content_encoding not UTF-8": (CONTENT_ENCODING, shortstr(b"\xff")),
    "type not UTF-8": (TYPE, shortstr(b"\xff")),
    "reply_to not UTF-8": (REPLY_TO, shortstr(b"\xff")),
    "app_id not UTF-8": (APP_ID, shortstr(b"\xff")),
    "header key not UTF-8": (HEADERS, header(b"\xff\xff", b"S" + longstr(b"v"))),
    "header value not UTF-8": (HEADERS, header(b"k", b"S" + longstr(b"\xff\xfe"))),
    "header value with NUL": (HEADERS, header(b"k", b"S" + longstr(b"a\x00b"))),
    "header key with NUL": (HEADERS, header(b"a\x00b", b"t\x01")),
    "header timestamp 2^64-1": (HEADERS, header(b"k", b"T" + struct.pack(">Q", 2**64 - 1))),
    "200 nested tables": (HEADERS, nested_tables(200)),
    "2000 nested tables": (HEADERS, nested_tables(2000)),
    "2000 nested arrays": (HEADERS, nested_arrays(2000)),
    "decimal of scale 255": (HEADERS, header(b"k", b"D\xff" + struct.pack(">I", 2**32 - 1))),
    "duplicate header": (HEADERS, longstr((shortstr(b"k") + b"t\x01") * 2)),
    "header of 120 KB": (HEADERS, header(b"k", b"S" + longstr(b"z" * 120_000))),
    "14,000 headers": (
        HEADERS,
        longstr(b"".join(shortstr(b"%05x" % number) + b"t\x01" for number in range(14_000))),
    ),
    "forged x-death": (
        HEADERS,
        header(b"x-death", b"A" + longstr(b"F" + longstr(_DEATH))),
    ),
    "x-death that is no list": (HEADERS, header(b"x-death", b"I" + struct.pack(">i", 5))),
    "forged x-delivery-count": (HEADERS, header(b"x-delivery-count", b"S" + longstr(b"evil"))),
    "priority 255": (PRIORITY, b"\xff"),
    "cluster_id": (CLUSTER_ID, shortstr(b"zz")),
    "no properties": (0, b""),
}

BROKEN = {
    "unknown type": (HEADERS, longstr(shortstr(b"k") + b"S\0\0\0\1v" + shortstr(b"z") + b"Z")),
    "longer than it is": (HEADERS, b"\0\0\xff\xff" + shortstr(b"k") + b"S\0\0\0\1v"),
}
"""Tables that no broker delivers, because it reads them itself."""


def content_header(flags: int, properties: bytes, size: int) -> bytes:
    """The payload of a content header frame."""
    return struct.pack(">HHQH", 60, 0, size, flags) + properties
