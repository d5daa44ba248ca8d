"""Compare the messages of a feed with the events that it must have published."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import orjson

from saga_engine.events.event_store.recorded import Recorded
from saga_engine.protocol.message import Delivery


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedComparison:
    """
    What a consumer has received.

    Args:
        events: how many it must have received.
        lost: how many of them did not arrive.
        out_of_order: how many arrived first after a later event of their stream.
        altered: messages that are no event, or another one than their id says.
        repeated: messages of events that had arrived before, with the same id.
    """

    events: int
    lost: int
    out_of_order: int
    altered: int
    repeated: int

    @property
    def is_correct(self) -> bool:
        """Whether the feed has kept its promise; it may repeat events."""
        return not (self.lost or self.out_of_order or self.altered)


def compare_feed(events: Sequence[Recorded], deliveries: Iterable[Delivery]) -> FeedComparison:
    """Compare all events of some streams with what has arrived of them, in its order."""
    by_id = {str(event.id): event for event in events}
    arrived: set[str] = set()
    last_versions: dict[str, int] = {}
    out_of_order = altered = repeated = 0
    for delivery in deliveries:
        event = by_id.get(delivery.message_id)
        if event is None or not _is_message_of(event, delivery):
            altered += 1
        elif delivery.message_id in arrived:
            repeated += 1
        else:
            arrived.add(delivery.message_id)
            last_version = last_versions.get(event.stream, 0)
            out_of_order += event.version < last_version
            last_versions[event.stream] = max(event.version, last_version)
    return FeedComparison(
        events=len(events),
        lost=len(events) - len(arrived),
        out_of_order=out_of_order,
        altered=altered,
        repeated=repeated,
    )


def _is_message_of(event: Recorded, delivery: Delivery) -> bool:
    expected = {
        "ce-id": str(event.id),
        "ce-subject": event.stream,
        "ce-streamversion": str(event.version),
        "ce-type": event.type,
    }
    return expected.items() <= delivery.headers.items() and (
        delivery.body == orjson.dumps(event.data)
    )
