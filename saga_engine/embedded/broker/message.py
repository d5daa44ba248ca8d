"""
A message inside the broker: what was published, and its place in one queue.

`PublishedMessage` never changes and is shared by every queue it was routed to; `QueuedMessage` is
one queue's own record of it.
"""

import time
from dataclasses import dataclass
from functools import cached_property

from pamqp import commands, header

from saga_engine.embedded.broker.frames import Place
from saga_engine.embedded.broker.properties import (
    Properties,
    Table,
    array_value,
    number_value,
    read_array,
    read_table,
    table_value,
    text_value,
    time_value,
)

_RECORD = 300  # Bytes a queued message takes besides its body and properties, about.


@dataclass(frozen=True)
class PublishedMessage:
    """What a publisher sent, byte for byte."""

    exchange: str
    routing_key: str
    raw: Properties
    body: bytes

    @property
    def place(self) -> Place:
        """Where it was published to."""
        return Place(self.exchange, self.routing_key)

    @property
    def size(self) -> int:
        """Bytes it takes in memory, about."""
        return len(self.body) + len(self.raw.raw) + _RECORD

    @cached_property
    def properties(self) -> commands.Basic.Properties:
        """Its properties decoded, for the rules of `faults`; empty when they cannot be."""
        content = header.ContentHeader()
        try:
            content.unmarshal(b"\x00\x3c\x00\x00" + bytes(8) + self.raw.raw)
        except Exception:  # noqa: BLE001 - whatever bytes make a decoder raise is their fault
            return commands.Basic.Properties()
        return content.properties


@dataclass(slots=True)
class QueuedMessage:
    """
    A message in one queue.

    `position`: its place in the queue's order. `returns`: how often a consumer gave it back or
    died with it. `expires`: on the event loop's clock.
    """

    message: PublishedMessage
    position: int
    expires: float | None = None
    redelivered: bool = False
    returns: int = 0

    def delivered(self, *, counted: bool) -> bytes:
        """The properties to deliver it with; a quorum queue says how often it came back."""
        if not counted or not self.returns:
            return self.message.raw.raw
        headers = {**self.message.raw.headers, b"x-delivery-count": number_value(self.returns)}
        return self.message.raw.changed(headers).raw


def dead(message: PublishedMessage, queue: str, reason: str, place: Place) -> PublishedMessage:
    """The message as it leaves `queue` for `place`, with its x-death (rabbitmq.com/docs/dlx)."""
    headers = message.raw.headers
    deaths = [death for death in _deaths(headers) if not _is(death, queue, reason)]
    before = [death for death in _deaths(headers) if _is(death, queue, reason)]
    count = _count(before[0]) + 1 if before else 1
    deaths.insert(0, _death(message, queue, reason, count))
    headers[b"x-death"] = array_value([table_value(death) for death in deaths])
    first = {"reason": reason, "queue": queue, "exchange": message.exchange}
    for name, value in first.items():
        headers.setdefault(f"x-first-death-{name}".encode(), text_value(value))
    return PublishedMessage(
        exchange=place.exchange,
        routing_key=place.routing_key,
        raw=message.raw.changed(headers, keep_expiration=False),
        body=message.body,
    )


def in_cycle(message: PublishedMessage, queue: str) -> bool:
    """Whether it died in `queue` before and nobody has rejected it since: it would for ever."""
    name = text_value(queue)
    for death in _deaths(message.raw.headers):
        if death.get(b"reason") == text_value("rejected"):
            return False
        if death.get(b"queue") == name:
            return True
    return False


def _death(message: PublishedMessage, queue: str, reason: str, count: int) -> Table:
    death = {
        b"count": number_value(count),
        b"reason": text_value(reason),
        b"queue": text_value(queue),
        b"time": time_value(int(time.time())),
        b"exchange": text_value(message.exchange),
        b"routing-keys": array_value([text_value(message.routing_key)]),
    }
    if message.raw.expiration is not None:
        death[b"original-expiration"] = text_value(message.raw.expiration)
    return death


def _deaths(headers: Table) -> list[Table]:
    """The deaths so far; a forged x-death of another shape counts for nothing."""
    try:
        values = read_array(headers.get(b"x-death", b""))
        return [read_table(value[1:]) for value in values if value[:1] == b"F"]
    except ValueError:
        return []


def _is(death: Table, queue: str, reason: str) -> bool:
    return (death.get(b"queue"), death.get(b"reason")) == (text_value(queue), text_value(reason))


def _count(death: Table) -> int:
    return int.from_bytes(death.get(b"count", b"")[1:9], "big", signed=True) % 2**62
