"""The position and the lease of one feed, as one process keeps them."""

from dataclasses import dataclass

from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.feeds.feed_table import FeedKey, Progress
from saga_engine.events.feeds.interfaces import FeedStore
from saga_engine.events.readers.owned_loop import NotOwner


@dataclass(frozen=True, slots=True)
class FeedCheckpoint:
    """
    The position of one feed.

    Args:
        key: of a registered feed.
        store: where it is.
        owner: this process.
        lease: seconds for which another process waits after this one has saved.
    """

    key: FeedKey
    store: FeedStore
    owner: str
    lease: float

    async def acquire(self) -> int | None:
        """Take or renew the lease, and return the position; None: stopped, or another has it."""
        async with self.store.transaction() as tx:
            return await tx.acquire_feed(self.key, self.owner, self.lease)

    async def save_differences(self, differences: tuple[str, ...]) -> None:
        """Save how the destination differs from what the feed declares, for `feeds show`."""
        async with self.store.transaction() as tx:
            await tx.save_feed_differences(self.key, differences)

    async def save(self, progress: Progress, failed: tuple[Recorded, str] | None = None) -> None:
        """
        Save a position and renew the lease.

        Args:
            progress: how far the feed has come.
            failed: the event that it stops at, and why.

        Raises:
            NotOwner: another process has changed the feed.
        """
        async with self.store.transaction() as tx:
            if not await tx.save_feed(self.key, progress, self.owner, self.lease):
                raise NotOwner
            if failed:
                await tx.stop_feed(self.key, *failed)
