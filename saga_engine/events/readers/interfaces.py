"""
The database of events as every reader of the log uses it.

    EventStore          opens transactions
    EventTransaction    one transaction, which reads the log

`sql_event_store` is that in PostgreSQL. The simulation has another in memory; the tests in
tests/simulation/test_event_model.py run on both.

Every method may raise StoreUnavailable (try again), StoreRefused (a retry would fail too) or
SchemaMismatch; see `errors`.
"""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.event_store.log_page import LogFilter, LogPage
from saga_engine.events.event_store.recorded import Recorded
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


class EventStore(Protocol):
    """Opens transactions of the database of events."""

    def transaction(self) -> AbstractAsyncContextManager[EventTransaction]:
        """
        Open a transaction: committed at the end of the block, rolled back if it raises.

        Raises:
            StoreUnavailable: also if whether it was committed is unknown.
        """
