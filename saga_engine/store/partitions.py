"""
Months of runs: adds the partitions of the coming months and drops those that have expired.

A worker's duty calls `maintain` every `maintenance_interval` (worker/maintenance_duties.py).

Runs and their journals are not deleted one by one. A month is dropped when all its runs have been
finished for `run_retention_days` and no start of that month is pending, in this order:

1. The index that finds late finishers is completed, and the business keys of the runs are released.
2. The month is detached from the tables.
3. Its incidents and pending requests are deleted in batches, and its tables are dropped.

A month is kept while a projection or a feed has not read its journals, see `journal_readers`.

Tables are locked in the order that workers use, `run` before `journal` and each before its
partitions, with a short timeout and retries.

A business key is released if its run had finished before the cutoff, which is set when the month is
checked. A run that starts or finishes after that keeps its key and its month.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Protocol, TypeAlias

from saga_engine.backoff import Backoff
from saga_engine.errors import StoreLockTimeout
from saga_engine.postgres.statement import TransactionSource
from saga_engine.store.journal_readers import JournalReader, ReaderKind
from saga_engine.store.partition_tables import SqlPartitionTables

MONTHS_AHEAD = 12
"""Months after the current one that have partitions, unless the settings say otherwise."""

RETENTION_HOLD = 7 * 86_400.0
"""Seconds for which a reader that does not move keeps a month; the default of the setting."""

_PAGE_SIZE = 5000  # rows in one transaction
_BACKOFF = Backoff(initial=0.1, maximum=1.0)  # between two attempts to lock


@dataclass(frozen=True, slots=True)
class LockRetry:
    """How many seconds one attempt to lock a table waits, and how many attempts are made."""

    lock_timeout: float = 0.2
    max_attempts: int = 20


@dataclass(slots=True)
class ReaderReport:
    """
    What retention has found about projections and feeds.

    `held_by` have not read an expired month, which is kept for them. `passed_over` were not waited
    for any longer in this call. `incomplete` were passed over, in this call or before.
    """

    held_by: list[JournalReader] = field(default_factory=list)
    passed_over: list[JournalReader] = field(default_factory=list)
    incomplete: Sequence[tuple[ReaderKind, str]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceResult:
    """
    The partitions that were added, and the months that were dropped, such as `2026_11`.

    `missing` partitions could not be added, because the default partitions have too many rows.
    `lock_attempts` is how often tables were locked. `readers` is None without retention.
    """

    created: int
    dropped: tuple[str, ...]
    missing: int = 0
    lock_attempts: int = 0
    readers: ReaderReport | None = None


class PartitionTables(Protocol):
    """The partitioned tables in one transaction. Each method is one statement."""

    async def count_missing_partitions(self, months_ahead: int) -> int:
        """Count the partitions of the coming months that are missing."""

    async def add_partitions(self, months_ahead: int) -> int:
        """Add missing partitions, and return how many there are now."""

    async def expiry_cutoff(self, retention_days: int) -> datetime:
        """Return the time before which the runs of a month must have finished."""

    async def expired_months(self, cutoff: datetime) -> list[str]:
        """Return the months that ended before the cutoff."""

    async def month_needed(self, month: str, cutoff: datetime) -> bool:
        """Whether a month has an unfinished run, one that finished later, or a pending start."""

    async def summarize_finished_index(self, month: str, first_page: int) -> int | None:
        """
        Summarize some ranges of the index on `finished_at`.

        Returns:
            The first page of the next ranges; None when there are none.
        """

    async def release_keys(
        self, month: str, after_run_id: str, cutoff: datetime, limit: int
    ) -> str | None:
        """
        Release the keys of the next runs, in the order of their ids.

        Returns:
            The last of these runs; None when there was none.
        """

    async def set_lock_timeout(self, seconds: float) -> None:
        """Set how long the next statements of this transaction wait for a lock."""

    async def detach_month(self, month: str, cutoff: datetime) -> int:
        """Detach a month, unless it is still needed; return how many were detached."""

    async def readers_behind(self, month: str) -> Sequence[JournalReader]:
        """Return the projections and feeds that have not read the journals of a month."""

    async def pass_over_readers(self, month: str) -> Sequence[JournalReader]:
        """Mark the projections and feeds that have not read a detached month; return them."""

    async def incomplete_readers(self) -> Sequence[tuple[ReaderKind, str]]:
        """Return the projections and feeds that are marked so."""

    async def detached_months(self) -> list[str]:
        """Return the months that were detached."""

    async def delete_incidents(self, month: str, limit: int) -> int:
        """Delete incidents of a detached month, and return how many."""

    async def delete_requests(self, month: str, limit: int) -> int:
        """Delete pending requests of a detached month, and return how many."""

    async def drop_month(self, month: str) -> None:
        """Drop the tables of a detached month."""


OpenTables: TypeAlias = Callable[[], AbstractAsyncContextManager[PartitionTables]]
"""Opens a transaction: committed when the block ends, rolled back when it raises."""


async def maintain(
    database: TransactionSource,
    *,
    retention_days: int,
    months_ahead: int = MONTHS_AHEAD,
    lock_retry: LockRetry = LockRetry(),
    retention_hold: float = RETENTION_HOLD,
) -> MaintenanceResult:
    """
    Add the partitions of the coming months and drop the months that have expired.

    Any number of workers may do this at once. With *retention_days* of 0 nothing is dropped. If
    there is nothing to do, no table is locked. For *retention_hold* seconds a month is kept for a
    projection or a feed that has not read it and does not move.

    Raises:
        StoreLockTimeout: the tables were locked in each attempt; a later call continues.
        StoreUnavailable: the database is unavailable.
    """
    return await maintain_tables(
        partial(_open_tables, database),
        retention_days=retention_days,
        months_ahead=months_ahead,
        lock_retry=lock_retry,
        retention_hold=retention_hold,
    )


@asynccontextmanager
async def _open_tables(database: TransactionSource) -> AsyncIterator[SqlPartitionTables]:
    async with database.transaction() as tx:
        yield SqlPartitionTables(tx)


async def maintain_tables(
    open_tables: OpenTables,
    *,
    retention_days: int,
    months_ahead: int,
    lock_retry: LockRetry,
    retention_hold: float,
) -> MaintenanceResult:
    """Maintain the tables of any database; see `maintain`."""
    locks = _TableLocks(open_tables, lock_retry)
    async with open_tables() as tables:
        missing = await tables.count_missing_partitions(months_ahead)
    created = 0
    if missing:
        created = await locks.execute(lambda tables: tables.add_partitions(months_ahead))
    if retention_days == 0:
        return MaintenanceResult(
            created=created, dropped=(), missing=missing - created, lock_attempts=locks.attempts
        )
    readers = ReaderReport()
    async with open_tables() as tables:
        cutoff = await tables.expiry_cutoff(retention_days)
        months = await tables.expired_months(cutoff)
    for month in months:
        if not await _is_held(open_tables, month, cutoff, retention_hold, readers):
            await _detach_month(open_tables, locks, month, cutoff, readers)
    async with open_tables() as tables:
        detached = await tables.detached_months()
        readers.incomplete = tuple(await tables.incomplete_readers())
    for month in detached:
        await _delete_month(open_tables, month)
    return MaintenanceResult(
        created=created,
        dropped=tuple(detached),
        missing=missing - created,
        lock_attempts=locks.attempts,
        readers=readers,
    )


class _TableLocks:
    """Makes changes that lock whole tables, with a short lock timeout and retries."""

    def __init__(self, open_tables: OpenTables, lock_retry: LockRetry) -> None:
        self.attempts = 0
        self._open_tables = open_tables
        self._lock_retry = lock_retry

    async def execute(self, change: Callable[[PartitionTables], Awaitable[int]]) -> int:
        """Make a change, and return its result."""
        retry = 0
        while True:
            self.attempts += 1
            try:
                async with self._open_tables() as tables:
                    await tables.set_lock_timeout(self._lock_retry.lock_timeout)
                    return await change(tables)
            except StoreLockTimeout:
                if retry + 1 >= self._lock_retry.max_attempts:
                    raise
            await asyncio.sleep(_BACKOFF.delay(retry))  # the waiting workers have their turn
            retry += 1


async def _is_held(
    open_tables: OpenTables,
    month: str,
    cutoff: datetime,
    retention_hold: float,
    readers: ReaderReport,
) -> bool:
    """Whether a month has runs that are still needed, or must be kept for a reader."""
    async with open_tables() as tables:
        if await tables.month_needed(month, cutoff):
            return True
        behind = await tables.readers_behind(month)
    if all(each.unmoved_s > retention_hold for each in behind):
        return False
    readers.held_by += behind
    return True


async def _detach_month(
    open_tables: OpenTables,
    locks: _TableLocks,
    month: str,
    cutoff: datetime,
    readers: ReaderReport,
) -> None:
    """Detach a month, unless it is needed again, and pass over those that have not read it."""

    async def detach(tables: PartitionTables) -> int:
        detached = await tables.detach_month(month, cutoff)
        passed_over[:] = await tables.pass_over_readers(month) if detached else ()
        return detached

    passed_over: list[JournalReader] = []
    await _summarize_finished_index(open_tables, month)
    after_run_id: str | None = "00000000-0000-0000-0000-000000000000"
    while after_run_id is not None:
        async with open_tables() as tables:
            after_run_id = await tables.release_keys(month, after_run_id, cutoff, _PAGE_SIZE)
    await locks.execute(detach)
    readers.passed_over += passed_over


async def _summarize_finished_index(open_tables: OpenTables, month: str) -> None:
    """
    Complete the index on `finished_at` before its table is locked.

    PostgreSQL would read the ranges that no vacuum has summarized row by row, while every worker
    waits.
    """
    first_page: int | None = 0
    while first_page is not None:
        async with open_tables() as tables:
            first_page = await tables.summarize_finished_index(month, first_page)


async def _delete_month(open_tables: OpenTables, month: str) -> None:
    """Delete the rows and tables of a detached month, which no worker reads any more."""
    deleted = _PAGE_SIZE
    while deleted == _PAGE_SIZE:
        async with open_tables() as tables:
            deleted = await tables.delete_incidents(month, _PAGE_SIZE)
    deleted = _PAGE_SIZE
    while deleted == _PAGE_SIZE:
        async with open_tables() as tables:
            deleted = await tables.delete_requests(month, _PAGE_SIZE)
    async with open_tables() as tables:
        await tables.drop_month(month)
