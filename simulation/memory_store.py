"""The model of the engine's database, as the worker and the rest of a simulation use it."""

from contextlib import AbstractAsyncContextManager

from simulation.memory_database import MemoryDatabase, MemoryDatabaseClient, MemoryTransaction
from simulation.process import SimulatedProcess


class MemoryStoreTransaction(MemoryTransaction):
    """One transaction."""


class MemoryStore:
    """
    The connection of one process to the engine's database.

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
