"""Events that arrive after a later one of their stream."""

from saga_engine.events.consumers.received import Received

MAX_STREAMS = 10_000
"""Streams whose last version is in memory: those of minutes, in which a late event arrives."""


class LateEvents:
    """
    Finds late events by the versions that this process has seen.

    They take effect, and are counted: a queue that was bound by hand, or a producer that is no
    feed, may deliver events in another order.
    """

    def __init__(self) -> None:
        self._versions: dict[str, int] = {}

    def is_late(self, event: Received) -> bool:
        """Whether a later event of the stream was seen; note this one."""
        if not event.version:  # its producer does not number events
            return False
        last = self._versions.get(event.stream, 0)
        if event.version < last:
            return True
        if len(self._versions) >= MAX_STREAMS:
            self._versions.clear()
        self._versions[event.stream] = event.version
        return False
