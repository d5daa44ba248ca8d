"""
Measures how far consumers are, and notices those that do not move.

A partition is healthy when it is stored, and it moves or nothing waits in its source. What cannot
be known, because the broker is unreachable, is a problem of the connection.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from saga_engine.events.consumers import consumer_failures, consumer_lag, consumer_table
from saga_engine.events.consumers.consumer_failures import NOTHING_WAITS, FailureNumbers
from saga_engine.events.consumers.consumer_table import (
    ConsumerState,
    PartitionKey,
    StoredPartition,
)
from saga_engine.events.consumers.interfaces import Source, SourceLag
from saga_engine.events.readers.stall_detector import Standstill
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.telemetry.events import ConsumersMeasured, Observer
from saga_engine.telemetry.operations import Operation


class MonitoredConsumers(Protocol):
    """The consumers of a process, as they are measured."""

    @property
    def sources(self) -> Mapping[str, Source]:
        """The source of each consumer that the process declares; filled when they are opened."""

    @property
    def source_problems(self) -> Mapping[PartitionKey, str]:
        """Why partitions of the process cannot be consumed now, each a sentence."""


class ConsumerMonitor:
    """
    Measures the consumers of a process, and emits what it finds.

    Args:
        database: of the consumers.
        consumers: of this process.
        owner: this process, as it is stored with its leases.
        settings: what counts as a standstill.
        emit: takes telemetry events.
    """

    operation = Operation.CONSUMER

    def __init__(
        self,
        database: Database,
        consumers: MonitoredConsumers,
        owner: str,
        settings: Settings,
        emit: Observer,
    ) -> None:
        self._database = database
        self._consumers = consumers
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
        sources = self._consumers.sources
        async with self._database.transaction() as tx:
            found = await consumer_table.read(tx)
            numbers = await consumer_failures.read_numbers(tx)
        # A source with fewer partitions than the earlier one leaves rows of that.
        stored = [
            each
            for each in found
            if each.name in sources and each.source == sources[each.name].description
        ]
        lags = {each.key: await self._measure(each) for each in stored}
        known = {key: lag for key, lag in lags.items() if lag is not None}
        async with self._database.transaction() as tx:
            await consumer_lag.save(tx, known)
        now = asyncio.get_running_loop().time()
        missing = sorted(sources.keys() - {each.name for each in found})
        stalled = [problem for each in stored if (problem := self._stall(each, lags, now))]
        self._problems = [*map(_missing_problem, missing), *stalled]
        self._emit(self._measured(stored, lags, numbers))

    async def _measure(self, stored: StoredPartition) -> SourceLag | None:
        source = self._consumers.sources[stored.name]
        return await source.measure(stored.partition, stored.next_offset)

    def _measured(
        self,
        stored: Sequence[StoredPartition],
        lags: Mapping[PartitionKey, SourceLag | None],
        numbers: Mapping[tuple[str, int], FailureNumbers],
    ) -> ConsumersMeasured:
        kept, parked, unowned = Counter[str](), Counter[str](), Counter[str]()
        unavailable = Counter(each.consumer for each in self._consumers.source_problems)
        for each in stored:
            number = numbers.get((each.name, each.partition), NOTHING_WAITS)
            kept[each.name] += number.kept
            parked[each.name] += number.parked_streams
            unowned[each.name] += each.state is ConsumerState.ACTIVE and each.owner is None
        return ConsumersMeasured(
            partitions=_states(stored),
            waiting=_waiting(lags),
            lag_s=_lag_seconds(lags),
            kept={**kept},
            parked_streams={**parked},
            without_owner={**unowned},
            unavailable={name: unavailable[name] for name in self._consumers.sources},
        )

    def _stall(
        self, stored: StoredPartition, lags: Mapping[PartitionKey, SourceLag | None], now: float
    ) -> str | None:
        moved_at = int(stored.updated_at.timestamp() * 1_000)
        standstill = self._standstills.setdefault(stored.key, Standstill(moved_at, now))
        unmoved_s = standstill.observe(moved_at, now)
        lag = lags[stored.key]
        number = lag.messages if lag else 0
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


def _waiting(lags: Mapping[PartitionKey, SourceLag | None]) -> Mapping[str, int]:
    """How many messages wait for each consumer of which that is known."""
    unknown = {key.consumer for key, lag in lags.items() if lag is None}
    waiting: Counter[str] = Counter()
    for key, lag in lags.items():
        if lag is not None and key.consumer not in unknown:
            waiting[key.consumer] += lag.messages
    return {**waiting}


def _lag_seconds(lags: Mapping[PartitionKey, SourceLag | None]) -> Mapping[str, float]:
    """The age of the oldest message that waits for each consumer of which that is known."""
    seconds: dict[str, float] = {}
    for key, lag in lags.items():
        if lag is not None and lag.seconds is not None:
            seconds[key.consumer] = max(lag.seconds, seconds.get(key.consumer, 0.0))
    return seconds


def _missing_problem(name: str) -> str:
    return (
        f"consumer {name} is no longer in the database: its row was deleted. To run it again,"
        " restart the process"
    )
