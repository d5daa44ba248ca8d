"""
How many runs of a saga are under way at once, and whose turn it is next.

A command that waits in its participant's queue for longer than its timeout is sent again although
the participant is well: the queue grows by the copies, and runs are undone for nothing. Nobody but
the engine can keep the queue short, by beginning no more than can be answered in time. A start that
comes when all places are taken is committed, answered, and waits in PostgreSQL, the oldest first.
"""

import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

from saga_engine.settings import Settings
from saga_engine.store import inbox, runs
from saga_engine.store.database import Transaction
from saga_engine.worker.catalogue import Catalogue

PORTION = 10
"""The waiting are let in when a tenth of the places is free: one at a time costs too much."""


class Admission:
    """
    The places of each saga, as one worker sees them; its batches share it.

    A run takes a place while something is due of it within `in_flight_horizon`, as its `wake_at`
    says: that is lazy, so a place may be free that much later, but never too early. What is committed
    is counted at most once in `poll`; what this worker has let in since is added. Workers that look
    in the same moment may together let in a batch each too many: the bound is there for the queues'
    sake, not to the last run.
    """

    def __init__(self, catalogue: Catalogue, settings: Settings) -> None:
        self._catalogue = catalogue
        self._places = settings.runs_in_flight
        self._horizon = timedelta(seconds=settings.in_flight_horizon)
        self._fresh = settings.poll
        self._looked = float("-inf")
        self._taken: Mapping[str, int] = {}
        self._let_in: Counter[str] = Counter()  # since that was counted
        self._undecided: Counter[str] = Counter()  # of them, in transactions that are not over
        self._waiting: set[str] = set()

    async def look(self, tx: Transaction) -> None:
        """Count what is committed, unless that is known from a moment ago."""
        now = time.monotonic()
        if now - self._looked < self._fresh:
            return
        self._looked = now
        self._let_in = Counter(self._undecided)
        waiting = await inbox.sagas_waiting(tx, self._catalogue.names, self._catalogue.ids)
        self._taken = await runs.due_within(tx, self._horizon)
        self._waiting = waiting

    def admits(self, saga: str) -> bool:
        """Whether a newcomer may begin: there is a place, and nobody waits for it."""
        return saga not in self._waiting and self._room(saga) > 0

    def turns(self, sagas: Collection[str], limit: int) -> dict[str, int]:
        """How many of those that wait may begin now, by saga, *limit* at the most of each."""
        room = {saga: self._room(saga) for saga in sagas}
        return {
            saga: min(free, limit) for saga, free in room.items() if free * PORTION >= self._places
        }

    def let_in(self, saga: str, places: Counter[str]) -> None:
        """Give a place away, in the transaction of *places*."""
        for counter in (self._let_in, self._undecided, places):
            counter[saga] += 1

    def queue(self, saga: str) -> None:
        """From now on newcomers go behind the one that was sent to wait."""
        self._waiting.add(saga)

    @contextmanager
    def places(self) -> Iterator[Counter[str]]:
        """
        Surround a transaction.

        Yields:
            The runs it lets in, by saga, to be counted by `let_in`: until it has ended they show
            nowhere else.
        """
        let_in: Counter[str] = Counter()
        try:
            yield let_in
        finally:
            self._undecided.subtract(let_in)

    def _room(self, saga: str) -> int:
        return max(0, self._places - self._taken.get(saga, 0) - self._let_in[saga])
