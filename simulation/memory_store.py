"""
The model of the engine's database: `Store` and `StoreTransaction` in memory.

Each method of a transaction stands for the function of the store that `SqlStoreTransaction` calls:
it executes as many statements, in the same order, and stores what the columns of the store's
records are. The tests of the store run on both.
"""

from contextlib import AbstractAsyncContextManager

from saga_engine.store.partitions import LockRetry, MaintenanceResult, maintain_tables
from simulation.append_model import AppendModel
from simulation.backlog_model import BacklogModel
from simulation.definition_model import DefinitionModel
from simulation.event_model import EventModel
from simulation.memory_client import MemoryDatabaseClient
from simulation.memory_database import MemoryDatabase
from simulation.outbox_model import OutboxModel
from simulation.partition_model import PartitionModel
from simulation.process import SimulatedProcess
from simulation.record_model import RecordModel
from simulation.request_model import RequestModel
from simulation.requester_model import RequesterModel
from simulation.run_model import RunModel
from simulation.suspect_model import SuspectModel


class MemoryStoreTransaction(
    RunModel,
    AppendModel,
    RequestModel,
    OutboxModel,
    RecordModel,
    BacklogModel,
    DefinitionModel,
    SuspectModel,
    RequesterModel,
    PartitionModel,
    EventModel,
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

    def batch(self) -> AbstractAsyncContextManager[MemoryStoreTransaction]:
        """Open a transaction that begins when rows are changed or locked, unless by `append`."""
        return self._client.batch()

    async def maintain_partitions(
        self,
        *,
        retention_days: int,
        months_ahead: int,
        lock_retry: LockRetry,
        retention_hold: float,
    ) -> MaintenanceResult:
        """Drop the months that have expired; none is missing."""
        return await maintain_tables(
            self.transaction,
            retention_days=retention_days,
            months_ahead=months_ahead,
            lock_retry=lock_retry,
            retention_hold=retention_hold,
        )

    async def purge_expired(self, *, dead_letter_days: int, audit_days: int) -> int:
        """Delete expired rows: the model keeps all."""
        del dead_letter_days, audit_days
        async with self.transaction() as tx, tx.statement():
            return 0
