"""
When this process runs each of its projections or feeds, so that every process has its share.

It looks at all leases at once, and in time for the end of one: a process that does not renew its
lease is followed by another as soon as the lease has ended.
"""

import asyncio
from collections.abc import Callable, Sequence

from saga_engine.errors import StoreError, StoreLockTimeout
from saga_engine.events.readers.lease_share import Lease, LeaseKey, Share, share_of
from saga_engine.events.readers.lease_table import LeaseTable
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.waiting import wait_for_event

LOOKS = 3
"""Looks in the time of a lease; a lease is renewed as often."""

MARGIN_SECONDS = 0.01
"""How long after the end of a lease the look is that has to find it ended."""


class Turn:
    """
    The times in which this process may run one projection or feed.

    `end` is set while it has to give it up, and when the process stops.
    """

    def __init__(self, turns: "Turns", key: LeaseKey) -> None:
        self.end = asyncio.Event()
        self._turns = turns
        self._key = key
        self._may_take = asyncio.Event()
        self._is_stopped = False

    async def wait(self) -> None:
        """Wait until a look finds that this process may take it, or the process stops."""
        await self._may_take.wait()
        if not self._is_stopped:
            self._may_take.clear()  # the next one is that of a later look

    async def hand_over(self) -> None:
        """
        Give the lease to the process that wants it.

        Raises:
            StoreUnavailable: whether it has the lease is unknown.
        """
        await self._turns.hand_over(self._key)
        if not self._is_stopped:
            self.end.clear()  # until the next look, if that process wants it no longer

    def update(self, share: Share) -> None:
        """Take over what a look has found."""
        if self._key in share.takes:
            self._may_take.set()
        if self._key in share.gives:
            self.end.set()
        else:
            self.end.clear()

    def stop(self) -> None:
        """End all waiting, now and later: the process stops."""
        self._is_stopped = True
        self._may_take.set()
        self.end.set()


class Turns:
    """
    The turns of all projections, or of all feeds, of a process.

    Args:
        leases: where they are stored.
        database: which has them.
        owner: this process.
        settings: how long a lease lasts, and how often to look.
        report: takes the error of a look, which is repeated.
    """

    def __init__(
        self,
        leases: LeaseTable,
        database: Database,
        owner: str,
        settings: Settings,
        report: Callable[[StoreError], None],
    ) -> None:
        self._leases = leases
        self._database = database
        self._owner = owner
        self._lease = settings.projection_lease
        self._report = report
        self._settings = settings
        self._turns: dict[LeaseKey, Turn] = {}
        self._is_stopped = False
        self._has_more = asyncio.Event()  # than at the last look

    def add(self, key: LeaseKey) -> Turn:
        """Take part with one more projection or feed, and look at once."""
        turn = self._turns[key] = Turn(self, key)
        self._has_more.set()
        if self._is_stopped:
            turn.stop()
        return turn

    def remove(self, key: LeaseKey) -> None:
        """Take no part with it any more."""
        del self._turns[key]

    async def run(self, stop: asyncio.Event) -> None:
        """Look until *stop* is set; then all turns end, at once."""
        async with asyncio.TaskGroup() as tasks:
            looking = tasks.create_task(self._look_repeatedly())
            await stop.wait()
            self._is_stopped = True
            for turn in self._turns.values():
                turn.stop()
            looking.cancel()

    async def hand_over(self, key: LeaseKey) -> None:
        """Give the lease of this process to the one that wants it."""
        async with self._database.transaction() as tx:
            await self._leases.hand_over(tx, key, self._owner, self._lease)

    async def _look_repeatedly(self) -> None:
        while True:
            self._has_more.clear()
            seconds = self._lease / LOOKS
            try:
                seconds = await self._look()
            except StoreError as error:
                self._report(error)
            await wait_for_event(self._has_more, seconds)

    async def _look(self) -> float:
        """Look once; return after how many seconds to look again."""
        async with self._database.transaction() as tx:
            leases = await self._leases.read(tx, self._turns.keys())
        share = share_of(self._owner, leases, self._lease / LOOKS)
        for turn in self._turns.values():
            turn.update(share)
        wanted = [each for each in leases if each.key in share.wants]
        async with asyncio.TaskGroup() as tasks:
            for each in wanted:
                tasks.create_task(self._want(each))
        return next_look(self._owner, leases, share, self._settings)

    async def _want(self, lease: Lease) -> None:
        try:
            async with self._database.transaction() as tx:
                await self._leases.want(tx, lease, self._owner, self._lease)
        except StoreLockTimeout:
            return  # the batch that has locked the row takes long; the next look tries again
        except StoreError as error:
            self._report(error)


def next_look(process: str, leases: Sequence[Lease], share: Share, settings: Settings) -> float:
    """
    Seconds until the next look.

    It is in time for the end of the first lease of another process, and soon while leases move.
    """
    regular = settings.projection_lease / LOOKS
    if share.wants or any(each.holder is None for each in leases):
        return min(regular, settings.event_poll_interval_max)
    ends = [each.ends_in for each in leases if each.owner not in (None, process)]
    return min([regular, *(max(0.0, each) + MARGIN_SECONDS for each in ends)])
