"""Pages of events, each of which is read while the one before it is applied or published."""

import asyncio

from saga_engine.events.event_store.log_page import LogFilter, LogPage
from saga_engine.events.readers.event_source import EventSource


class ReadAhead:
    """
    Reads one page ahead while there is more to read than a page.

    Events up to the horizon do not change, so a page is the same whenever it is read. Two pages are
    in memory, and two connections are in use.

    Args:
        source: where the events are.
        log_filter: which ones.
    """

    def __init__(self, source: EventSource, log_filter: LogFilter) -> None:
        self._source = source
        self._filter = log_filter
        self._after = 0
        self._reading: asyncio.Task[LogPage] | None = None

    async def read(self, after: int, max_events: int) -> LogPage:
        """
        Read the events after a position, and begin to read those after them.

        Args:
            after: the position to continue after.
            max_events: how many events at most, in this call or in the one that read ahead.

        Raises:
            StoreUnavailable: as EventSource.read.
        """
        if self._after != after:
            await self.close()
        if self._reading is None:
            page = await self._source.read(self._filter, after, max_events)
        else:
            reading, self._reading = self._reading, None
            page = await reading
        if len(page.events) >= max_events:
            self._after = page.position
            following = self._source.read(self._filter, page.position, max_events)
            self._reading = asyncio.get_running_loop().create_task(following)
        return page

    async def close(self) -> None:
        """Give up what is being read."""
        if self._reading is None:
            return
        reading, self._reading = self._reading, None
        reading.cancel()
        await asyncio.wait([reading])
        if not reading.cancelled():
            reading.exception()  # asyncio reports an error that was not looked at
