"""
An event as a message for Kafka: CloudEvents 1.0 in binary mode.

The attributes are headers that begin with `ce_`, and the value is the data alone (docs/protocol.md,
section 16). The key is the stream, so all events of a stream are in one partition. A message
depends on nothing but its event, so a repeated one is the same.
"""

from dataclasses import dataclass
from uuid import UUID

from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.feeds.cloud_event import attributes
from saga_engine.events.feeds.event_encoder import EncodedData

_BATCH_OVERHEAD = 61 + 36
"""
The largest overhead of a record batch with one record: the header of the batch (61 bytes), and the
lengths, offset and timestamp of the record (at most 36).
"""
_HEADER_OVERHEAD = 10  # of the two lengths of a header


@dataclass(frozen=True, slots=True)
class KafkaMessage:
    """One message: key, value and headers."""

    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]

    @property
    def size(self) -> int:
        """At most so many bytes does it have, before compression; see `max.message.bytes`."""
        headers = sum(len(name) + len(value) + _HEADER_OVERHEAD for name, value in self.headers)
        return _BATCH_OVERHEAD + len(self.key) + len(self.value) + headers


def encode_message(event: Recorded, data: EncodedData, log_id: UUID) -> KafkaMessage:
    """
    Make the message of an event.

    Args:
        event: an event.
        data: its data as the value.
        log_id: the identity of the log that it is from.
    """
    named = attributes(event, log_id, data.schema_id).items()
    headers = tuple((f"ce_{name}", value.encode()) for name, value in named)
    content_type = ("content-type", data.content_type.encode())
    return KafkaMessage(event.stream.encode(), data.body, (content_type, *headers))
