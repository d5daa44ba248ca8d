"""
The store in PostgreSQL and its model, with what clients, operators and watchdogs record.

The fixture `store` runs a test on both: what such a test promises, the model keeps as well.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from saga_engine.store import audit, checked_requests, crash_suspects, journal
from saga_engine.store.audit import OperatorAction
from saga_engine.store.checked_requests import NewStart, StartResult
from saga_engine.store.crash_suspects import CrashSuspect
from saga_engine.store.database import Database, SqlAlchemyTransaction
from saga_engine.store.interfaces import Store, StoreTransaction
from saga_engine.store.journal import StoredEvent
from saga_engine.store.pending_requests import NewRequest
from saga_engine.store.sql_store import SqlStore, SqlStoreTransaction
from simulation.memory_database import MemoryTransaction
from simulation.rows import stored_events_of


class RequesterTransaction(StoreTransaction, Protocol):
    """A StoreTransaction with functions that no worker calls."""

    async def record_start(self, new_start: NewStart) -> StartResult | None:
        """As `checked_requests.record_start`."""

    async def record_actions(self, actions: Sequence[OperatorAction]) -> None:
        """As `audit.record`."""

    async def record_operator_requests(self, requests: Sequence[NewRequest]) -> None:
        """As `checked_requests.record_operator_requests`."""

    async def record_crash(self, suspect: CrashSuspect) -> int:
        """As `crash_suspects.record_crash`."""


class RequesterStore(Store, Protocol):
    """A Store with such transactions."""

    def transaction(self) -> AbstractAsyncContextManager[RequesterTransaction]: ...

    def batch(self) -> AbstractAsyncContextManager[RequesterTransaction]: ...


class SqlRequesterTransaction(SqlStoreTransaction):
    def __init__(self, tx: SqlAlchemyTransaction) -> None:
        super().__init__(tx)
        self.sql = tx

    async def record_start(self, new_start: NewStart) -> StartResult | None:
        return await checked_requests.record_start(self.sql, new_start)

    async def record_actions(self, actions: Sequence[OperatorAction]) -> None:
        await audit.record(self.sql, actions)

    async def record_operator_requests(self, requests: Sequence[NewRequest]) -> None:
        await checked_requests.record_operator_requests(self.sql, requests)

    async def record_crash(self, suspect: CrashSuspect) -> int:
        return await crash_suspects.record_crash(self.sql, suspect)


class SqlRequesterStore(SqlStore):
    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._sql = database

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqlRequesterTransaction]:
        async with self._sql.transaction() as tx:
            yield SqlRequesterTransaction(tx)

    @asynccontextmanager
    async def batch(self) -> AsyncIterator[SqlRequesterTransaction]:
        async with self._sql.batch() as tx:
            yield SqlRequesterTransaction(tx)


async def read_events(tx: StoreTransaction, run_id: str) -> list[StoredEvent]:
    """Read the events of a run, in order."""
    if isinstance(tx, SqlRequesterTransaction):
        return await journal.read(tx.sql, run_id)
    assert isinstance(tx, MemoryTransaction)
    async with tx.statement():
        rows = [row for key, row in tx.scan("journal") if key[0] == run_id]
    in_order = sorted(rows, key=lambda row: row["revision"])
    return [event for row in in_order for event in stored_events_of(row)]
