"""
The events of a feed that are on their way: which to publish next, and how far the feed is.

Where a sink may refuse an event and take the next, one event of each stream at a time is published:
a queue that was full may have a place again. A consumer that has the later event takes the earlier
one for a repetition, and drops it.
"""

from collections import deque
from collections.abc import Iterable, Sequence

from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.feeds.feed import Unroutable
from saga_engine.events.feeds.feed_sink import SinkRules
from saga_engine.protocol.message import PublishOutcome


class FeedBatch:
    """
    Events of a feed, in the order of their positions.

    Args:
        events: all that the feed selects of the positions after `after`, up to `until`.
        after: the position that the feed has reached.
        until: the position after these events.
        sink: where they go.
    """

    def __init__(self, events: Sequence[Recorded], after: int, until: int, sink: SinkRules) -> None:
        self.position = after
        self._published = 0
        self._skipped = 0
        self.failed: tuple[Recorded, PublishOutcome] | None = None
        self._until = until
        self._sink = sink
        self._waiting = deque(events)
        self._done: dict[int, PublishOutcome] = {}
        self._streams: dict[str, deque[Recorded]] = {}
        for event in events:
            self._streams.setdefault(event.stream, deque()).append(event)
        self._advance()

    def next_events(self) -> list[Recorded]:
        """
        Return what to publish next; none at the end.

        That is all that is not done, or the first event of each stream if the sink takes one at a
        time. After an event that can never be published come only those before it: the feed stops
        there.
        """
        if self._sink.one_at_a_time:
            events = [queue[0] for queue in self._streams.values()]
        else:
            events = [each for each in self._waiting if each.position not in self._done]
        if self.failed is None:
            return events
        return [each for each in events if each.position < self.failed[0].position]

    def record(self, results: Iterable[tuple[Recorded, PublishOutcome]]) -> None:
        """
        Record what has become of events that `next_events` has returned.

        An event that was refused, or of which nothing is known, is returned again.
        """
        for event, outcome in results:
            if self._streams[event.stream][0] is not event:
                continue  # an earlier event of its stream is published again, and this one after it
            match outcome:
                case PublishOutcome.CONFIRMED | PublishOutcome.WAITING:
                    self._remove(event, outcome)
                case PublishOutcome.UNROUTABLE if self._sink.unroutable is Unroutable.SKIP:
                    self._remove(event, outcome)
                case PublishOutcome.UNROUTABLE | PublishOutcome.UNPUBLISHABLE:
                    self._fail(event, outcome)
                case PublishOutcome.NACKED | PublishOutcome.UNKNOWN:
                    pass
        self._advance()

    def take_skipped(self) -> int:
        """
        Return how many events up to `position` were skipped, of those not returned before.

        One beyond it would be counted again when it is published again after a crash.
        """
        skipped, self._skipped = self._skipped, 0
        return skipped

    def take_published(self) -> int:
        """Return how many events up to `position` were confirmed, as `take_skipped` does."""
        published, self._published = self._published, 0
        return published

    def _remove(self, event: Recorded, outcome: PublishOutcome) -> None:
        queue = self._streams[event.stream]
        queue.popleft()
        if not queue:
            del self._streams[event.stream]
        self._done[event.position] = outcome

    def _fail(self, event: Recorded, outcome: PublishOutcome) -> None:
        if self.failed is None or event.position < self.failed[0].position:
            self.failed = (event, outcome)

    def _advance(self) -> None:
        """Move `position` up to the first event that is not done."""
        while self._waiting and self._waiting[0].position in self._done:
            outcome = self._done.pop(self._waiting.popleft().position)
            self._skipped += outcome is PublishOutcome.UNROUTABLE
            self._published += outcome is PublishOutcome.CONFIRMED
        self.position = self._waiting[0].position - 1 if self._waiting else self._until
