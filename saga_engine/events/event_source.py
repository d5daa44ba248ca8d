"""Where the projections or the feeds of a process read their events."""

from dataclasses import dataclass

from saga_engine.events.event_log import EventLog
from saga_engine.events.horizon_watch import HorizonWatch
from saga_engine.events.log_page import LogFilter, LogPage, read_page
from saga_engine.settings import Settings
from saga_engine.store.database import Database


@dataclass(frozen=True, slots=True)
class EventSource:
    """A database, the identity of its log, its horizon, and how much is read at once."""

    database: Database
    log: EventLog
    horizon: HorizonWatch
    settings: Settings

    async def read(self, log_filter: LogFilter, after: int, max_events: int) -> LogPage:
        """
        Read up to *max_events* events after a position, up to the horizon that was seen last.

        Raises:
            StoreUnavailable: the database is out of reach, or has lost the position.
        """
        async with self.database.transaction() as tx:
            return await read_page(
                tx, self.log, log_filter, (after, self.horizon.position), self.settings, max_events
            )
