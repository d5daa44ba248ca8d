"""
The model of the engine's database: `Store` and `StoreTransaction` in memory.

Each method of a transaction stands for the function of the store that `SqlStoreTransaction` calls:
it executes as many statements, in the same order, and stores what the columns of the store's
records are. The tests of the store run on both.
"""

import asyncio
from contextlib import AbstractAsyncContextManager
from datetime import datetime

from saga_engine.errors import StoreLockTimeout
from saga_engine.store.partitions import LockRetry, MaintenanceResult
from simulation.backlog_model import BacklogModel
from simulation.definition_model import DefinitionModel
from simulation.memory_database import MemoryDatabase, MemoryDatabaseClient
from simulation.outbox_model import OutboxModel
from simulation.partition_model import PAGE_SIZE, PartitionModel
from simulation.process import SimulatedProcess
from simulation.record_model import RecordModel
from simulation.request_model import RequestModel
from simulation.requester_model import RequesterModel
from simulation.run_model import RunModel
from simulation.suspect_model import SuspectModel

LOCK_RETRY_DELAY_S, MAX_LOCK_RETRY_DELAY_S = 0.05, 1.0
"""Seconds between two attempts to lock the tables."""


class MemoryStoreTransaction(
    RunModel,
    RequestModel,
    OutboxModel,
    RecordModel,
    BacklogModel,
    DefinitionModel,
    SuspectModel,
    RequesterModel,
    PartitionModel,
):
    """A `StoreTransaction`, with what clients, operators and the maintenance do."""


class MemoryStore:
    """
    The connection of one process to the engine's database: a `Store`.

    Args:
        lock_timeout: seconds to wait for a row lock; None waits without end.
    """

    def __init__(
        self, database: MemoryDatabase, process: SimulatedProcess, lock_timeout: float | None = None
    ) -> None:
        self._client = MemoryDatabaseClient(database, process, MemoryStoreTransaction, lock_timeout)

    def transaction(self) -> AbstractAsyncContextManager[MemoryStoreTransaction]:
        """Open a transaction: committed at the end of the block, rolled back if it raises."""
        return self._client.transaction()

    async def maintain_partitions(
        self, *, retention_days: int, months_ahead: int, lock_retry: LockRetry
    ) -> MaintenanceResult:
        """Drop the months that have expired; none is missing."""
        del months_ahead
        async with self.transaction() as tx:
            missing = await tx.count_missing_partitions()
        if retention_days == 0:
            return MaintenanceResult(0, (), missing)
        async with self.transaction() as tx:
            cutoff = await tx.read_cutoff()
            months = await tx.expired_months(cutoff)
        lock_attempts = 0
        for month in months:
            lock_attempts += await self._detach_month(month, cutoff, lock_retry)
        async with self.transaction() as tx:
            detached = await tx.detached_months()
        for month in detached:
            await self._drop_month(month)
        return MaintenanceResult(0, tuple(detached), missing, lock_attempts)

    async def _detach_month(self, month: str, cutoff: datetime, lock_retry: LockRetry) -> int:
        """Detach a month, unless it is needed; return how often the tables were locked."""
        async with self.transaction() as tx:
            if await tx.month_is_needed(month, cutoff):
                return 0
        async with self.transaction() as tx:
            await tx.summarize_index()
        after_run_id: str | None = ""
        while after_run_id is not None:
            async with self.transaction() as tx:
                after_run_id = await tx.release_keys(month, after_run_id, cutoff)
        attempt = 0
        while True:
            attempt += 1
            try:
                async with self.transaction() as tx:
                    await tx.detach_month(month, cutoff)
            except StoreLockTimeout:
                if attempt >= lock_retry.max_attempts:
                    raise
            else:
                return attempt
            await asyncio.sleep(min(MAX_LOCK_RETRY_DELAY_S, LOCK_RETRY_DELAY_S * 2**attempt))

    async def _drop_month(self, month: str) -> None:
        deleted = PAGE_SIZE
        while deleted == PAGE_SIZE:
            async with self.transaction() as tx:
                deleted = await tx.delete_incidents(month)
        deleted = PAGE_SIZE
        while deleted == PAGE_SIZE:
            async with self.transaction() as tx:
                deleted = await tx.delete_requests(month)
        async with self.transaction() as tx:
            await tx.drop_month(month)

    async def purge_expired(self, *, dead_letter_days: int, audit_days: int) -> int:
        """Delete expired rows: the model keeps all."""
        del dead_letter_days, audit_days
        async with self.transaction() as tx:
            return await tx.purge_batch()
