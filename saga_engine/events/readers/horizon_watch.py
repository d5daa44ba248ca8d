"""One look at the horizon for all projections of a process."""

import asyncio

from saga_engine.backoff import Backoff
from saga_engine.events.readers.interfaces import EventStore
from saga_engine.settings import Settings
from saga_engine.waiting import wait_for_any, wait_for_event


class HorizonWatch:
    """
    Asks for the horizon periodically while a task waits for it to move, and wakes all that do.

    Polling, because a notification in each transaction that appends would cost it several times as
    much, and is lost when the connection is.

    `position` is the horizon at the last look, `failed_looks` how many have failed since then.
    """

    def __init__(self, store: EventStore, settings: Settings) -> None:
        self.position = 0
        self.failed_looks = 0
        self._store = store
        self._intervals = Backoff(settings.event_poll_interval, settings.event_poll_interval_max)
        self._interval_max = settings.event_poll_interval_max
        self._moved = asyncio.Event()
        self._waiting = 0  # how many wait for it to move
        self._wanted = asyncio.Event()  # set while a task waits

    async def wait_beyond(self, position: int, seconds: float) -> bool:
        """Wait until the horizon is above *position*, for at most *seconds*; whether it is."""
        if self.position > position:
            return True
        self._waiting += 1
        self._wanted.set()
        try:
            async with asyncio.timeout(seconds):
                while self.position <= position:
                    await self._moved.wait()
        except TimeoutError:
            return False
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._wanted.clear()
        return True

    async def look(self) -> bool:
        """
        Ask for the horizon once; whether it is another one.

        It can be lower: a transaction announces a position that it has read a moment before, and a
        failover may lose positions.
        """
        self.failed_looks += 1
        async with self._store.transaction() as tx:
            position = await tx.horizon()
        self.failed_looks = 0
        if position == self.position:
            return False
        self.position = position
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
        return True

    async def run(self, stop: asyncio.Event) -> None:
        """
        Look until *stop* is set, less often while nothing moves or no task waits.

        Raises:
            StoreUnavailable: the database is out of reach; call it again.
        """
        idle_looks = 0
        while not stop.is_set():
            idle_looks = 0 if await self.look() else idle_looks + 1
            await wait_for_event(stop, self._intervals.delay(idle_looks))
            await wait_for_any((self._wanted, stop), self._interval_max)
