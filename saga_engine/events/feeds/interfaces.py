"""
The database as the loop of a feed uses it, and the broker as its exchange does.

    FeedStore           opens transactions
    FeedTransaction     one transaction, which reads the log and keeps the positions of feeds
    FeedMessages        publishes the messages of feeds to the exchange

`sql_feed_store` is the store in PostgreSQL. The simulation has another in memory; the tests in
tests/simulation/test_event_model.py run on both.

Every method may raise StoreUnavailable (try again), StoreRefused (a retry would fail too) or
SchemaMismatch; see `errors`.
"""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from saga_engine.amqp.interfaces import MessagePublisher
from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.feeds.feed_table import FeedKey, Progress
from saga_engine.events.readers.interfaces import EventStore, EventTransaction
from saga_engine.protocol.message import Message


class FeedTransaction(EventTransaction, Protocol):
    """One transaction, at READ COMMITTED."""

    async def acquire_feed(self, key: FeedKey, owner: str, lease: float) -> int | None:
        """Take or renew the lease, and return the position; None: another process has it."""

    async def save_feed(self, key: FeedKey, progress: Progress, owner: str, lease: float) -> bool:
        """Save the position and renew the lease; False unless it is the owner at `after`."""

    async def save_feed_differences(self, key: FeedKey, differences: tuple[str, ...]) -> None:
        """Replace how the destination of a feed differs from what it declares."""

    async def stop_feed(self, key: FeedKey, event: Recorded, problem: str) -> None:
        """Stop a feed before an event that it cannot publish, and record why."""


class FeedStore(EventStore, Protocol):
    """Opens transactions of the database of events and of feeds."""

    def transaction(self) -> AbstractAsyncContextManager[FeedTransaction]:
        """Open a transaction, as `EventStore.transaction` does."""


class FeedMessages(MessagePublisher, Protocol):
    """Publishes the messages of feeds; see `amqp.publisher.Publisher`."""

    def unpublishable_reason(self, message: Message) -> str:
        """Return why the broker can never take a message; empty when it can."""
