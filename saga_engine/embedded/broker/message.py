"""
A message in the broker: what was published, and its state in one queue.

A `PublishedMessage` is immutable and shared by every queue that it was routed to. A `QueuedMessage`
is the record of one queue.
"""

import time
from dataclasses import dataclass
from functools import cached_property

from pamqp import commands, header

from saga_engine.embedded.broker.frames import Destination
from saga_engine.embedded.broker.properties import (
    EncodedProperties,
    EncodedTable,
    encode_array,
    encode_integer,
    encode_table,
    encode_text,
    encode_timestamp,
    read_array,
    read_table,
)

_QUEUED_MESSAGE_OVERHEAD = (
    300  # Approximate bytes of a queued message besides its body and properties.
)


@dataclass(frozen=True, kw_only=True)
class PublishedMessage:
    """A message as it was published, byte by byte, without a header BCC."""

    exchange: str
    routing_key: str
    raw_properties: EncodedProperties
    body: bytes
    other_routing_keys: tuple[str, ...] = ()

    @property
    def destination(self) -> Destination:
        """The exchange and the routing key."""
        return Destination(self.exchange, self.routing_key)

    @property
    def memory_size(self) -> int:
        """Approximate bytes in memory."""
        return len(self.body) + len(self.raw_properties.raw) + _QUEUED_MESSAGE_OVERHEAD

    @cached_property
    def properties(self) -> commands.Basic.Properties:
        """The decoded properties, for interceptors; empty if they cannot be decoded."""
        content = header.ContentHeader()
        try:
            content.unmarshal(b"\x00\x3c\x00\x00" + bytes(8) + self.raw_properties.raw)
        except Exception:  # noqa: BLE001 - any error is caused by the bytes
            return commands.Basic.Properties()
        return content.properties


@dataclass(slots=True, kw_only=True)
class QueuedMessage:
    """
    A message in one queue.

    `position` orders the messages of the queue. `expires` is a time of the event loop.
    """

    message: PublishedMessage
    position: int
    expires: float | None = None
    redelivered: bool = False
    requeue_count: int = 0

    def delivery_properties(self, *, with_delivery_count: bool) -> bytes:
        """The properties to deliver; a quorum queue adds the number of redeliveries."""
        if not with_delivery_count or not self.requeue_count:
            return self.message.raw_properties.raw
        headers = {
            **self.message.raw_properties.headers,
            b"x-delivery-count": encode_integer(self.requeue_count),
        }
        return self.message.raw_properties.with_headers(headers).raw


def dead_lettered(
    message: PublishedMessage, queue: str, reason: str, destination: Destination
) -> PublishedMessage:
    """The message that is dead-lettered, with its x-death header (rabbitmq.com/docs/dlx)."""
    headers = message.raw_properties.headers
    death_entries = [
        death for death in _death_entries(headers) if not _is_same_death(death, queue, reason)
    ]
    previous = [death for death in _death_entries(headers) if _is_same_death(death, queue, reason)]
    count = _death_count(previous[0]) + 1 if previous else 1
    death_entries.insert(0, _death_entry(message, queue, reason, count))
    headers[b"x-death"] = encode_array([encode_table(death) for death in death_entries])
    first = {"reason": reason, "queue": queue, "exchange": message.exchange}
    for name, value in first.items():
        headers.setdefault(f"x-first-death-{name}".encode(), encode_text(value))
    return PublishedMessage(
        exchange=destination.exchange,
        routing_key=destination.routing_key,
        raw_properties=message.raw_properties.with_headers(headers, keep_expiration=False),
        body=message.body,
    )


def is_dead_letter_cycle(message: PublishedMessage, queue: str) -> bool:
    """Whether the message returns to `queue` without having been rejected: an endless cycle."""
    name = encode_text(queue)
    for death in _death_entries(message.raw_properties.headers):
        if death.get(b"reason") == encode_text("rejected"):
            return False
        if death.get(b"queue") == name:
            return True
    return False


def _death_entry(message: PublishedMessage, queue: str, reason: str, count: int) -> EncodedTable:
    death = {
        b"count": encode_integer(count),
        b"reason": encode_text(reason),
        b"queue": encode_text(queue),
        b"time": encode_timestamp(int(time.time())),
        b"exchange": encode_text(message.exchange),
        b"routing-keys": encode_array([encode_text(message.routing_key)]),
    }
    if message.raw_properties.expiration is not None:
        death[b"original-expiration"] = encode_text(message.raw_properties.expiration)
    return death


def _death_entries(headers: EncodedTable) -> list[EncodedTable]:
    """The previous deaths; an x-death header of another structure is ignored."""
    try:
        values = read_array(headers.get(b"x-death", b""))
        return [read_table(value[1:]) for value in values if value[:1] == b"F"]
    except ValueError:
        return []


def _is_same_death(death: EncodedTable, queue: str, reason: str) -> bool:
    return (death.get(b"queue"), death.get(b"reason")) == (encode_text(queue), encode_text(reason))


def _death_count(death: EncodedTable) -> int:
    return int.from_bytes(death.get(b"count", b"")[1:9], "big", signed=True) % 2**62
