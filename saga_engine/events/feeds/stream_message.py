"""
An event as a message of a stream: AMQP 1.0, with the attributes of CloudEvents.

The attributes are application properties that begin with `cloudEvents_`, and the body is the data
alone (docs/protocol.md, section 15). Every message is encoded as AMQP 1.0: one that is not would
close the connection of each consumer that reads the stream by AMQP 0-9-1.
"""

from collections.abc import Mapping
from uuid import UUID

import mmh3

from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.feeds.cloud_event import attributes
from saga_engine.events.feeds.event_encoder import EncodedData

PREFIX = "cloudEvents_"
"""Of the attributes, as the AMQP binding of CloudEvents prefers it to `cloudEvents:`."""

_MURMUR_SEED = 104_729
"""That of RabbitMQ's clients for Java, .NET and Go, so that all agree on the partition of a key."""

_PROPERTIES = b"\x00\x53\x73"
_APPLICATION_PROPERTIES = b"\x00\x53\x74"
_DATA = b"\x00\x53\x75"
_NULL = b"\x40"
_LIST, _MAP = b"\xd0", b"\xd1"
_CONTENT_TYPE_PLACE = 6
"""The properties before it: message-id, user-id, to, subject, reply-to, correlation-id."""


def partition_of(stream: str, partitions: int) -> int:
    """Return the partition of all events of a stream, from 0."""
    return mmh3.hash(stream.encode(), _MURMUR_SEED, signed=False) % partitions


def encode_stream_message(event: Recorded, data: EncodedData, log_id: UUID) -> bytes:
    """
    Make the message of an event.

    Args:
        event: an event.
        data: its data as the body.
        log_id: the identity of the log that it is from.
    """
    named = attributes(event, log_id, data.schema_id).items()
    properties = {f"{PREFIX}{name}": value for name, value in named}
    return encode_amqp(data.body, str(event.id), data.content_type, properties)


def encode_amqp(
    body: bytes, message_id: str, content_type: str, properties: Mapping[str, str]
) -> bytes:
    """
    Encode a message as AMQP 1.0 (section 3.2 of the specification).

    It takes a sixth of the time of rstream's encoder, with which publishing takes twice as long.
    """
    listed = [
        _text(message_id),
        *[_NULL] * (_CONTENT_TYPE_PLACE - 1),
        _text(content_type, b"\xa3\xb3"),
    ]
    mapped = [_text(each) for pair in properties.items() for each in pair]
    return b"".join(
        (
            *(_PROPERTIES, _compound(_LIST, listed)),
            *(_APPLICATION_PROPERTIES, _compound(_MAP, mapped)),
            *(_DATA, _sized(body, b"\xa0\xb0")),
        )
    )


def _text(value: str, codes: bytes = b"\xa1\xb1") -> bytes:
    return _sized(value.encode(), codes)


def _sized(value: bytes, codes: bytes) -> bytes:
    """Encode with the short or the long code, by the length."""
    if len(value) < 256:
        return codes[:1] + bytes((len(value),)) + value
    return codes[1:] + len(value).to_bytes(4, "big") + value


def _compound(code: bytes, parts: list[bytes]) -> bytes:
    content = b"".join(parts)
    size, count = len(content) + 4, len(parts)
    return code + size.to_bytes(4, "big") + count.to_bytes(4, "big") + content
