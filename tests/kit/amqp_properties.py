"""
Properties and headers that no client library sends, as the bytes of a hostile sender.

The number in a name is that of the list of hostile input in docs/reliability.md. With plain pamqp,
the first half ends the connection of every consumer, without end.
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
    DELIVERY_MODE,
    PRIORITY,
    CORRELATION_ID,
    REPLY_TO,
    EXPIRATION,
    MESSAGE_ID,
    TIMESTAMP,
    TYPE,
    USER_ID,
    APP_ID,
    CLUSTER_ID,
) = (1 << (15 - place) for place in range(14))

_DEATH = shortstr(b"count") + b"l" + struct.pack(">q", 999)
_OTHER_PROPERTIES = b"".join(
    b"S" + longstr(queue)
    for queue in (b"saga.replies", b"saga.requests", b"saga.dead-letters", b"saga.participant.kit")
)

PROPERTIES = {
    "B30 timestamp 2^64-1": (TIMESTAMP, struct.pack(">Q", 2**64 - 1)),
    "B30 timestamp 2^62": (TIMESTAMP, struct.pack(">Q", 2**62)),
    "B30 timestamp in the year 12000": (TIMESTAMP, struct.pack(">Q", 316_516_464_000_000)),
    "B31 message_id not UTF-8": (MESSAGE_ID, shortstr(b"\xff\xfe\x80")),
    "B31 message_id with NUL": (MESSAGE_ID, shortstr(b"a\x00b")),
    "B31 correlation_id not UTF-8": (CORRELATION_ID, shortstr(b"\xc3\x28")),
    "B31 content_type not UTF-8": (CONTENT_TYPE, shortstr(b"\xff")),
    "B31 content_encoding not UTF-8": (CONTENT_ENCODING, shortstr(b"\xff")),
    "B31 type not UTF-8": (TYPE, shortstr(b"\xff")),
    "B31 reply_to not UTF-8": (REPLY_TO, shortstr(b"\xff")),
    "B31 app_id not UTF-8": (APP_ID, shortstr(b"\xff")),
    "B32 header key not UTF-8": (HEADERS, header(b"\xff\xff", b"S" + longstr(b"v"))),
    "B32 header value not UTF-8": (HEADERS, header(b"k", b"S" + longstr(b"\xff\xfe"))),
    "B32 header value with NUL": (HEADERS, header(b"k", b"S" + longstr(b"a\x00b"))),
    "B32 header key with NUL": (HEADERS, header(b"a\x00b", b"t\x01")),
    "B33 header timestamp 2^64-1": (HEADERS, header(b"k", b"T" + struct.pack(">Q", 2**64 - 1))),
    "B34 200 nested tables": (HEADERS, nested_tables(200)),
    "B34 2000 nested tables": (HEADERS, nested_tables(2000)),
    "B34 2000 nested arrays": (HEADERS, nested_arrays(2000)),
    "B36 decimal of scale 255": (HEADERS, header(b"k", b"D\xff" + struct.pack(">I", 2**32 - 1))),
    "B37 duplicate header": (HEADERS, longstr((shortstr(b"k") + b"t\x01") * 2)),
    "B38 header of 120 KB": (HEADERS, header(b"k", b"S" + longstr(b"z" * 120_000))),
    "B38 14,000 headers": (
        HEADERS,
        longstr(b"".join(shortstr(b"%05x" % number) + b"t\x01" for number in range(14_000))),
    ),
    "B39 forged x-death": (
        HEADERS,
        header(b"x-death", b"A" + longstr(b"F" + longstr(_DEATH))),
    ),
    "B39 x-death of another type": (HEADERS, header(b"x-death", b"I" + struct.pack(">i", 5))),
    "B40 forged x-delivery-count": (HEADERS, header(b"x-delivery-count", b"S" + longstr(b"evil"))),
    "B44 priority 255": (PRIORITY, b"\xff"),
    "B47 cluster_id": (CLUSTER_ID, shortstr(b"zz")),
    "B39 forged x-death of 5,000 deaths": (
        HEADERS,
        header(b"x-death", b"A" + longstr((b"F" + longstr(_DEATH)) * 5000)),
    ),
    "B40 x-delivery-count 99": (HEADERS, header(b"x-delivery-count", b"l" + struct.pack(">q", 99))),
    "B41 CC to other queues": (HEADERS, header(b"CC", b"A" + longstr(_OTHER_PROPERTIES))),
    "B41 BCC to other queues": (HEADERS, header(b"BCC", b"A" + longstr(_OTHER_PROPERTIES))),
    "B41 CC of another type": (HEADERS, header(b"CC", b"S" + longstr(b"saga.requests"))),
    "B42 user_id of another user": (USER_ID, shortstr(b"administrator")),
    "B43 expiration abc": (EXPIRATION, shortstr(b"abc")),
    "B43 expiration 2^40": (EXPIRATION, shortstr(b"%d" % 2**40)),
    "B43 expiration -1": (EXPIRATION, shortstr(b"-1")),
    "B44 delivery_mode 0": (DELIVERY_MODE, b"\0"),
    "B44 delivery_mode 1": (DELIVERY_MODE, b"\1"),
    "B44 delivery_mode 255": (DELIVERY_MODE, b"\xff"),
    "B45 no properties": (0, b""),
    "B45 message_id of 255 bytes": (MESSAGE_ID, shortstr(b"m" * 255)),
    "B45 message_id of 255 bytes that are no UTF-8": (MESSAGE_ID, shortstr(b"\xff" * 255)),
    "B46 reply_to amq.rabbitmq.reply-to": (REPLY_TO, shortstr(b"amq.rabbitmq.reply-to.g1h2AA")),
    "B46 reply_to another program's queue": (REPLY_TO, shortstr(b"saga.requests")),
    "B46 reply_to of 255 bytes": (REPLY_TO, shortstr(b"r" * 255)),
    "B47 app_id saga-engine": (APP_ID, shortstr(b"saga-engine")),
    "B48 content_encoding nested": (CONTENT_ENCODING, shortstr(b"gzip,gzip,gzip")),
    "B48 content_encoding unknown": (CONTENT_ENCODING, shortstr(b"x-rot13")),
    "B49 traceparent malformed": (
        HEADERS,
        header(b"traceparent", b"S" + longstr(b"00-z\r\n\x1b")),
    ),
    "B49 baggage of 8 KB": (HEADERS, header(b"baggage", b"S" + longstr(b"k=v," * 2000))),
    "A17 content_type of a pickle": (CONTENT_TYPE, shortstr(b"application/x-python-serialize")),
    "A23 version 999 of something": (
        HEADERS,
        header(b"schema-version", b"S" + longstr(b"1.0evil")),
    ),
}

UNDELIVERABLE = {
    "B35 unknown type": (HEADERS, longstr(shortstr(b"k") + b"S\0\0\0\1v" + shortstr(b"z") + b"Z")),
    "B35 longer than it is": (HEADERS, b"\0\0\xff\xff" + shortstr(b"k") + b"S\0\0\0\1v"),
}
"""Tables that the broker decodes itself and does not deliver."""

EXPECTED_REASONS = {
    "B31 content_encoding not UTF-8": "unsupported_encoding",
    "B32 header key not UTF-8": "bad_headers",
    "B34 200 nested tables": "bad_headers",
    "B34 2000 nested tables": "bad_headers",
    "B34 2000 nested arrays": "bad_headers",
    "B38 header of 120 KB": "bad_headers",
    "B38 14,000 headers": "bad_headers",
    "B39 forged x-death of 5,000 deaths": "bad_headers",
    "B48 content_encoding nested": "unsupported_encoding",
    "B48 content_encoding unknown": "unsupported_encoding",
}
"""Why a message with such properties is dead-lettered; with the others it is read."""


def content_header(flags: int, properties: bytes, size: int) -> bytes:
    """The payload of a content header frame."""
    return struct.pack(">HHQH", 60, 0, size, flags) + properties
