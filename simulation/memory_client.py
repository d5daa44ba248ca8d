"""The connection of one process to a model of PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from simulation.config import SETTINGS
from simulation.memory_database import MemoryDatabase, MemoryTransaction
from simulation.process import SimulatedProcess

T = TypeVar("T", bound=MemoryTransaction)
"""The transactions of one database."""

IDLE_TIMEOUT_S = SETTINGS.database_transaction_timeout
"""Seconds after which the server ends a transaction whose process stands still."""


class MemoryDatabaseClient(Generic[T]):
    """
    The connection of one process to a database.

    Args:
        transaction_type: a class of transactions, with the statements of that database.
        lock_timeout: seconds to wait for a row lock; None waits without end.
    """

    def __init__(
        self,
        database: MemoryDatabase,
        process: SimulatedProcess,
        transaction_type: type[T],
        lock_timeout: float | None = None,
    ) -> None:
        self._transaction_type = transaction_type
        self._database = database
        self._process = process
        self._lock_timeout = lock_timeout
        self._open_transactions: dict[T, None] = {}
        process.on_exit(self._release_all)
        process.on_freeze(self._end_idle_transactions)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[T]:
        """Open a transaction: committed at the end of the block, rolled back if it raises."""
        async with self.batch() as transaction:
            await transaction.begin()
            yield transaction

    @asynccontextmanager
    async def batch(self) -> AsyncIterator[T]:
        """Open a transaction that may begin later: what has not started has nothing to commit."""
        transaction = self._transaction_type(self._database, self._process, self._lock_timeout)
        self._open_transactions[transaction] = None
        try:
            yield transaction
            if transaction.has_started and not transaction.is_committed:
                await transaction.commit()
        finally:
            transaction.release()
            self._open_transactions.pop(transaction, None)

    def _end_idle_transactions(self, seconds: float) -> None:
        """Let the server end what is open when the process stands still for long."""
        if seconds <= IDLE_TIMEOUT_S:
            return
        loop = asyncio.get_running_loop()
        for transaction in self._open_transactions:
            if transaction.is_open_on_the_server:
                loop.call_later(IDLE_TIMEOUT_S, transaction.release)

    def _release_all(self) -> None:
        """Roll back the transactions of a process that crashed."""
        for transaction in self._open_transactions:
            transaction.release()
