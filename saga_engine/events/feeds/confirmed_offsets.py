"""How far a feed knows the partitions of its topic to reach, because Kafka has confirmed it."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConfirmedOffsets:
    """
    The least offsets at which the partitions of a topic end.

    Kafka never lowers the end of a partition, unless it loses messages that it has confirmed.

    Args:
        topic: the name and the id of the topic; another topic of the same name has another id.
        ends: of each partition, the offset after the last confirmed event; 0: none is known.
    """

    topic: str = ""
    ends: tuple[int, ...] = ()

    def of(self, topic: str, partitions: int) -> "ConfirmedOffsets":
        """Return what is known of a topic, which may be another one, or have more partitions."""
        known = self.ends if topic == self.topic else ()
        return ConfirmedOffsets(topic, known + (0,) * (partitions - len(known)))

    def after(self, confirmed: Mapping[int, int]) -> "ConfirmedOffsets":
        """Return what is known after events were confirmed: for a partition, the next offset."""
        ends = (max(end, confirmed.get(number, 0)) for number, end in enumerate(self.ends))
        return ConfirmedOffsets(self.topic, tuple(ends))


NO_OFFSETS = ConfirmedOffsets()
"""Nothing is known, as of every destination but a topic of Kafka."""
