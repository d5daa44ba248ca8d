"""Where the projections or the feeds of a process read their events."""

from dataclasses import dataclass

from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.event_store.log_page import LogFilter, LogPage
from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.readers.horizon_watch import HorizonWatch
from saga_engine.events.readers.interfaces import EventStore
from saga_engine.settings import Settings


@dataclass(frozen=True, slots=True)
class EventSource:
    """A database, the identity of its log, its horizon, and how much is read at once."""

    store: EventStore
    log: EventLog
    horizon: HorizonWatch
    settings: Settings

    async def read_stream(self, stream: str, after: int) -> list[Recorded]:
        """Read the next events of a stream after a version; StoreUnavailable as `read`."""
        async with self.store.transaction() as tx:
            return await tx.read_stream(self.log, stream, after, self.settings)

    async def read(self, log_filter: LogFilter, after: int, max_events: int) -> LogPage:
        """
        Read up to *max_events* events after a position, up to the horizon that was seen last.

        Raises:
            StoreUnavailable: the database is out of reach, or has lost the position.
        """
        bounds = (after, self.horizon.position)
        async with self.store.transaction() as tx:
            return await tx.read_page(self.log, log_filter, bounds, self.settings, max_events)
