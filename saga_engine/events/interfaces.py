"""
The database of events as the loops of projections and feeds use it.

    EventStore          opens transactions, which read the log and the positions of feeds
    EventTransaction    one transaction
    ProjectionWriter    writes the batches of one projection, each in a transaction
    FeedMessages        publishes the messages of feeds

`sql_event_store` and `projection_batch` are those in PostgreSQL. The simulation has others in
memory; the tests in tests/simulation/test_event_model.py run on both.

Every method may raise StoreUnavailable (try again), StoreRefused (a retry would fail too) or
SchemaMismatch; see `errors`.
"""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from saga_engine.amqp.interfaces import MessagePublisher
from saga_engine.events.event_batch import BatchResult, EventBatch, StreamRetry
from saga_engine.events.event_log import EventLog
from saga_engine.events.feed_table import FeedKey, Progress
from saga_engine.events.log_page import LogFilter, LogPage
from saga_engine.events.projection_failures import ParkedStream
from saga_engine.events.recorded import Recorded
from saga_engine.protocol.message import Message
from saga_engine.settings import Settings


class EventTransaction(Protocol):
    """One transaction, at READ COMMITTED."""

    async def horizon(self) -> int:
        """Return the position up to which a reader has everything."""

    async def read_page(
        self,
        log: EventLog,
        log_filter: LogFilter,
        bounds: tuple[int, int],
        settings: Settings,
        max_events: int,
    ) -> LogPage:
        """Read the events after the first of two positions, at most up to the second."""

    async def read_stream(
        self, log: EventLog, stream: str, after: int, settings: Settings
    ) -> list[Recorded]:
        """Read the next events of a stream after a version; none if there are none."""

    async def acquire_feed(self, key: FeedKey, owner: str, lease: float) -> int | None:
        """Take or renew the lease, and return the position; None: another process has it."""

    async def save_feed(self, key: FeedKey, progress: Progress, owner: str, lease: float) -> bool:
        """Save the position and renew the lease; False unless it is the owner at `after`."""

    async def stop_feed(self, key: FeedKey, event: Recorded, problem: str) -> None:
        """Stop a feed before an event that it cannot publish, and record why."""


class EventStore(Protocol):
    """Opens transactions of the database of events."""

    def transaction(self) -> AbstractAsyncContextManager[EventTransaction]:
        """
        Open a transaction: committed at the end of the block, rolled back if it raises.

        Raises:
            StoreUnavailable: also if whether it was committed is unknown.
        """


class ProjectionWriter(Protocol):
    """Writes the batches of one projection, with its checkpoint and its lease."""

    @property
    def parked(self) -> dict[str, int]:
        """The parked streams, and the position of the next event of each."""

    async def acquire(self) -> int | None:
        """Take or renew the lease, and return the checkpoint; None: another process has it."""

    async def apply(self, batch: EventBatch) -> BatchResult:
        """Apply a batch and save its checkpoint; NotOwner unless it is the owner at `after`."""

    async def retried_streams(self) -> list[ParkedStream]:
        """Return the parked streams that an operator wants to be retried."""

    async def retry_stream(self, retry: StreamRetry) -> BatchResult:
        """Apply events of a parked stream, unless an operator has skipped one since the read."""


class FeedMessages(MessagePublisher, Protocol):
    """Publishes the messages of feeds; see `amqp.publisher.Publisher`."""

    def unpublishable_reason(self, message: Message) -> str:
        """Return why the broker can never take a message; empty when it can."""
