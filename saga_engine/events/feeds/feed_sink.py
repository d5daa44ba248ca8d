"""
What publishes the events of a feed: its sink.

A feed has a loop, a position and a failure of its own for each of its sinks, so one that is out of
reach delays no other.
"""

from collections.abc import Sequence
from typing import Protocol

from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.feeds.confirmed_offsets import ConfirmedOffsets
from saga_engine.events.feeds.feed import Unroutable
from saga_engine.protocol.message import PublishOutcome


class SinkRules(Protocol):
    """How the events of a feed must be published to a sink."""

    @property
    def one_at_a_time(self) -> bool:
        """
        Whether the next event of a stream waits for the outcome of the one before.

        Necessary where the destination may refuse one event and take the next.
        """

    @property
    def unroutable(self) -> Unroutable:
        """What happens to an event that has no receiver."""


class FeedSink(SinkRules, Protocol):
    """
    Publishes the events of one feed.

    Nothing that the destination does raises an error: the outcomes say it.
    """

    @property
    def problem(self) -> str | None:
        """Why nothing can be published now, in a sentence; None: nothing is wrong."""

    @property
    def differences(self) -> tuple[str, ...]:
        """How the destination differs from what the feed declares, in sentences for operators."""

    @property
    def confirmed_offsets(self) -> ConfirmedOffsets:
        """What the destination has at least; it is saved with the position."""

    async def resume(self, position: int) -> int:
        """
        Begin, or begin again, after a position: this process is the owner now.

        Returns:
            The position up to which the destination is known to have every event: *position*, or a
            later one.

        Raises:
            NotOwner: the feed has another position by now.
            StoreError: the database is unavailable.
        """

    async def publish(self, events: Sequence[Recorded]) -> list[PublishOutcome]:
        """
        Publish events in their order, and wait until it is known what has become of them.

        The wait has a limit. Unless `one_at_a_time`, no event of a stream is confirmed after one
        that is not. Without events, it is only found out whether a `problem` is gone.

        Raises:
            NotOwner: this process has to begin again with `resume`.

        Returns:
            One outcome for each event. NACKED and UNKNOWN: it is published again. UNPUBLISHABLE:
            the feed stops before it. UNROUTABLE: as `unroutable` says. WAITING: the feed goes on,
            and the sink publishes the event itself.
        """

    def explain(self, event: Recorded, outcome: PublishOutcome) -> str:
        """Return why an event cannot be published, and what an operator can do about it."""
