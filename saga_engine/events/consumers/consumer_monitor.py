"""
Measures how far consumers are, and notices those that do not move.

A partition is healthy when it is stored, and it moves or nothing waits in its source. What cannot
be known, because the broker is unreachable, is a problem of the connection.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence

from saga_engine.events.consumers import consumer_failures, consumer_table
from saga_engine.events.consumers.consumer_table import (
    ConsumerState,
    PartitionKey,
    StoredPartition,
)
from saga_engine.events.consumers.interfaces import Source
from saga_engine.events.readers.stall_detector import Standstill
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.telemetry.events import ConsumersMeasured, Observer
from saga_engine.telemetry.operations import Operation


class ConsumerMonitor:
    """
    Measures the consumers of a process, and emits what it finds.

    Args:
        database: of the consumers.
        sources: of the consumers that this process declares, by their names; filled when they are
            opened.
        owner: this process, as it is stored with its leases.
        settings: what counts as a standstill.
        emit: takes telemetry events.
    """

    operation = Operation.CONSUMER

    def __init__(
        self,
        database: Database,
        sources: Mapping[str, Source],
        owner: str,
        settings: Settings,
        emit: Observer,
    ) -> None:
        self._database = database
        self._sources = sources
        self._owner = owner
        self._timeout = settings.projection_stall_timeout
        self._emit = emit
        self._standstills: dict[PartitionKey, Standstill] = {}
        self._problems: list[str] = []

    @property
    def problem(self) -> str | None:
        """Which consumers of this process do not move, as a sentence; None: all do."""
        return "; ".join(self._problems) or None

    async def measure(self) -> None:
        """
        Measure once.

        Raises:
            StoreError: the database is unavailable.
        """
        async with self._database.transaction() as tx:
            found = await consumer_table.read(tx)
            numbers = await consumer_failures.read_numbers(tx)
        stored = [each for each in found if each.name in self._sources]
        waiting = {each.key: await self._waiting(each) for each in stored}
        now = asyncio.get_running_loop().time()
        missing = sorted(self._sources.keys() - {each.name for each in stored})
        stalled = [problem for each in stored if (problem := self._stall(each, waiting, now))]
        self._problems = [*map(_missing_problem, missing), *stalled]
        kept: Counter[str] = Counter()
        total: Counter[str] = Counter()
        for each in stored:
            kept[each.name] += numbers[each.name, each.partition].kept
            total[each.name] += waiting[each.key] or 0
        self._emit(ConsumersMeasured(partitions=_states(stored), waiting={**total}, kept={**kept}))

    async def _waiting(self, stored: StoredPartition) -> int | None:
        source = self._sources[stored.name]
        return await source.waiting_count(stored.partition, stored.next_offset)

    def _stall(
        self, stored: StoredPartition, waiting: Mapping[PartitionKey, int | None], now: float
    ) -> str | None:
        moved_at = int(stored.updated_at.timestamp() * 1_000)
        standstill = self._standstills.setdefault(stored.key, Standstill(moved_at, now))
        unmoved_s = standstill.observe(moved_at, now)
        number = waiting[stored.key]
        is_due = stored.state is ConsumerState.ACTIVE and stored.owner in (self._owner, None)
        if not is_due or not number:
            standstill.since = now
            return None
        if unmoved_s < self._timeout:
            return None
        return (
            f"consumer {stored.name}, partition {stored.partition}, has consumed nothing for"
            f" {unmoved_s:.0f} s, and {number} messages wait"
        )


def _states(stored: Sequence[StoredPartition]) -> Mapping[tuple[str, str], int]:
    """How many partitions of each consumer are in each state."""
    names = {each.name for each in stored}
    counted = Counter((each.name, each.state.value) for each in stored)
    return {
        (name, state.value): counted[name, state.value] for name in names for state in ConsumerState
    }


def _missing_problem(name: str) -> str:
    return (
        f"consumer {name} is no longer in the database: its row was deleted. To run it again,"
        " restart the process"
    )
