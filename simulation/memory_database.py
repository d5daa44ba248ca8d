"""
A model of PostgreSQL: tables in memory, transactions at READ COMMITTED, row locks, lost answers.

It knows no SQL. What each statement of the engine means is defined by the modules that answer them
(`store`, `waiting`, `barrier`), in terms of the few things a transaction can do here: look, lock,
put, delete. The store's contract tests run over this model and over PostgreSQL.

A statement sees what was committed when it began (PostgreSQL manual, 13.2.1). Of a row that it
locks it reads the newest version, whether it had to wait for that row, for another, or for none; of
all others the old one.
"""

import asyncio
import re
from collections import defaultdict
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Hashable,
    Iterator,
    Sequence,
)
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any, TypeAlias

from saga_engine.errors import StoreLockTimeout, StoreRefused, StoreUnavailable
from simulation.faults import FaultKind, FaultPoint
from simulation.process import SimulatedProcess
from simulation.rows import Result, Row, RowRef

StatementHandler: TypeAlias = Callable[["MemoryTransaction", Any], Awaitable[Sequence[Any] | int]]

TIME_ZERO = datetime(2026, 11, 15, tzinfo=UTC)
"""When virtual time is 0."""


class StatementHandlers(dict[int, StatementHandler]):
    """
    What statements mean, by the identity of each; a statement lives as long as its module.

    `templates` are the texts of which statements are made as they are needed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.templates: dict[re.Pattern[str], StatementHandler] = {}

    def handles(
        self, module: ModuleType, *names: str
    ) -> Callable[[StatementHandler], StatementHandler]:
        """Declare what statements of *module* mean, by their names, which need not be public."""

        def declare(handler: StatementHandler) -> StatementHandler:
            self.update((id(vars(module)[name]), handler) for name in names)
            return handler

        return declare

    def handles_template(
        self, module: ModuleType, name: str
    ) -> Callable[[StatementHandler], StatementHandler]:
        """Declare what the statements mean that are made of a text of *module* and a `month`."""

        def declare(handler: StatementHandler) -> StatementHandler:
            pattern = re.escape(vars(module)[name]).replace(
                re.escape("{month}"), r"(?P<month>\w+?)", 1
            )
            pattern = pattern.replace(re.escape("{month}"), "(?P=month)")
            self.templates[re.compile(pattern)] = handler
            return handler

        return declare


class MemoryDatabase:
    """
    One database that knows some statements.

    Rows are never changed in place: a transaction that puts a row replaces it when it commits.
    `committed` are told of each transaction right before its commit happens.
    """

    def __init__(self, *handler_sets: StatementHandlers) -> None:
        self._handlers = {
            name: handler for handlers in handler_sets for name, handler in handlers.items()
        }
        self._templates = {
            pattern: handler
            for handlers in handler_sets
            for pattern, handler in handlers.templates.items()
        }
        self.rows: defaultdict[str, dict[Any, Row]] = defaultdict(dict)
        self.locks: dict[RowRef, MemoryTransaction] = {}
        self.on_commit: list[Callable[[MemoryTransaction], None]] = []
        self._sequences: defaultdict[str, int] = defaultdict(int)

    def handler_for(self, statement: object, arguments: Any) -> tuple[StatementHandler, Any]:
        """Find what a statement means, and its arguments with the `month` that it names."""
        handler = self._handlers.get(id(statement))
        if handler is not None:
            return handler, arguments
        for pattern, made in self._templates.items():
            if named := pattern.fullmatch(str(statement)):
                return made, {**(arguments or {}), **named.groupdict()}
        raise KeyError(f"The model does not know the statement {statement}.")

    def next_value(self, sequence: str) -> int:
        """Give the next number of a sequence; rolling back does not give it back."""
        self._sequences[sequence] += 1
        return self._sequences[sequence]


class MemoryTransaction:
    """
    One transaction: what it writes is its own until it commits, what it locks it keeps to its end.

    It is what the engine takes for a connection inside a transaction.
    """

    def __init__(
        self, database: MemoryDatabase, process: SimulatedProcess, lock_timeout: float | None
    ) -> None:
        self.process = process
        self.is_active = True
        self.invalidated = False
        self.info: dict[str, Any] = {}  # of a session; what is not known of it is not in there
        self.writes: defaultdict[str, dict[Any, Row | None]] = defaultdict(dict)
        self.locked_rows: list[RowRef] = []
        self._database = database
        self._lock_timeout = lock_timeout
        self._ended = asyncio.Event()
        self._snapshot: dict[str, dict[Any, Row]] | None = None
        self._read_latest: set[RowRef] = set()

    async def execute(self, statement: object, arguments: Any = None) -> Result:
        """
        Answer one of the statements that are known.

        Raises:
            StoreUnavailable: the connection was cut, or the statement took too long; nothing of
                the transaction happens.
            StoreBusy: somebody else holds a row for too long.
        """
        fault = await self.process.pass_point(FaultPoint.STATEMENT)
        if fault is not None and fault.kind is FaultKind.TIMEOUT:
            await asyncio.sleep(fault.seconds)  # what is locked stays locked
        if fault is not None or not self.is_active:
            self.release()
            raise StoreUnavailable("The simulated statement was cancelled, or cut off.")
        handler, arguments = self._database.handler_for(statement, arguments)
        try:
            return Result(await handler(self, arguments))
        finally:
            self.refresh_snapshot()

    def refresh_snapshot(self) -> None:
        """See what is committed by now, as each statement does, also one inside a function."""
        self._snapshot = None
        self._read_latest.clear()

    def get_transaction(self) -> "MemoryTransaction":
        """Itself: SQLAlchemy tells connections and transactions apart."""
        return self

    @property
    def now(self) -> datetime:
        """The database's clock."""
        return TIME_ZERO + timedelta(seconds=asyncio.get_running_loop().time())

    def next_value(self, sequence: str) -> int:
        """Give the next number of a sequence."""
        return self._database.next_value(sequence)

    def get(self, table: str, key: Hashable) -> Row | None:
        """Look at a row: its own, or the committed one."""
        writes = self.writes.get(table)
        if writes and key in writes:
            return writes[key]
        if self._snapshot is None or (table, key) in self._read_latest:
            return self._database.rows[table].get(key)
        return self._snapshot.get(table, {}).get(key)

    def scan(self, table: str) -> Iterator[tuple[Any, Row]]:
        """Look at all rows of a table, in the order they were put there."""
        writes = self.writes.get(table) or {}
        committed = self._database.rows if self._snapshot is None else self._snapshot
        rows = committed.get(table, {})
        for key, row in rows.items():
            if key not in writes:
                yield key, row
        for key, new_row in writes.items():
            if new_row is not None:
                yield key, new_row

    def is_lockable(self, table: str, key: Hashable) -> bool:
        """Whether nobody else holds the row."""
        return self._database.locks.get((table, key), self) is self

    def lock_unlocked(self, table: str, key: Hashable) -> None:
        """Lock a row that is free."""
        row_ref = (table, key)
        if row_ref not in self._database.locks:
            self._database.locks[row_ref] = self
            self.locked_rows.append(row_ref)

    async def lock(self, table: str, key: Hashable) -> Row | None:
        """Lock a row, waiting for whoever has it; the row as it is then, if it is there."""
        while not self.is_lockable(table, key):
            await self._wait_for(self._database.locks[table, key])
        self._read_latest.add((table, key))
        self.lock_unlocked(table, key)
        return self.get(table, key)

    async def lock_table(self, table: str) -> None:
        """Wait until nobody holds a row of a table."""
        while holders := [
            holder
            for row_ref, holder in self._database.locks.items()
            if row_ref[0] == table and holder is not self
        ]:
            await self._wait_for(holders[0])

    async def insert(self, table: str, key: Hashable, row: Row) -> bool:
        """Put a row unless its key is taken, waiting for whoever is about to take it."""
        while True:
            self._read_latest.add((table, key))  # an index has no snapshot
            holder = self._database.locks.get((table, key), self)
            if holder is not self and key in holder.writes[table]:
                await self._wait_for(holder)
            elif self.get(table, key) is not None:
                return False
            elif holder is not self:
                await self._wait_for(holder)
            else:
                self.lock_unlocked(table, key)
                self.put(table, key, row)
                return True

    async def insert_or_fail(self, table: str, key: Hashable, row: Row) -> None:
        """Put a row whose key nobody may have."""
        if not await self.insert(table, key, row):
            raise StoreRefused(f"The simulated table {table} has that key already (23505).")

    def put(self, table: str, key: Hashable, row: Row) -> None:
        """Write a row that is locked."""
        self.writes[table][key] = row

    def delete(self, table: str, key: Hashable) -> None:
        """Delete a row that is locked."""
        self.writes[table][key] = None

    async def commit(self) -> None:
        """
        Commit.

        Raises:
            StoreUnavailable: the connection was cut; whether it was committed only we know.
        """
        fault = await self.process.pass_point(FaultPoint.COMMIT)
        if not self.is_active or (fault is not None and fault.kind is FaultKind.DISCONNECT):
            self.release()
            raise StoreUnavailable("The simulated connection was cut before the commit.")
        for callback in self._database.on_commit:
            callback(self)
        for table, writes in self.writes.items():
            rows = self._database.rows[table]
            for key, row in writes.items():
                if row is None:
                    rows.pop(key, None)
                else:
                    rows[key] = row
        self.release()
        if fault is not None:
            if fault.kind is FaultKind.CRASH_AFTER:
                self.process.crash(fault)
            raise StoreUnavailable("The simulated connection was cut after the commit.")

    def release(self) -> None:
        """Forget what is not committed and let go of everything that is locked."""
        self.is_active = False
        for row_ref in self.locked_rows:
            if self._database.locks.get(row_ref) is self:
                del self._database.locks[row_ref]
        self.locked_rows = []
        self._ended.set()

    async def _wait_for(self, holder: "MemoryTransaction") -> None:
        if self._snapshot is None:
            self._snapshot = {table: dict(rows) for table, rows in self._database.rows.items()}
        try:
            async with asyncio.timeout(self._lock_timeout):
                await holder._ended.wait()  # noqa: SLF001 - another of its own kind
        except TimeoutError:
            self.release()
            raise StoreLockTimeout("Somebody else holds a row of the simulated database.") from None
        if not self.is_active:  # both ended at once: it can lock nothing any more
            raise StoreUnavailable("The simulated connection was cut while it waited.")


class MemoryDatabaseClient:
    """
    One process's way to a database.

    Args:
        patience: seconds to wait for a row that somebody else holds; None: as long as it takes.
    """

    def __init__(
        self, database: MemoryDatabase, process: SimulatedProcess, lock_timeout: float | None = None
    ) -> None:
        self._database = database
        self._process = process
        self._lock_timeout = lock_timeout
        self._open_transactions: dict[MemoryTransaction, None] = {}
        process.on_exit(self._release_all)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[MemoryTransaction]:
        """Open one transaction: committed when the block ends, undone when it raises."""
        transaction = MemoryTransaction(self._database, self._process, self._lock_timeout)
        self._open_transactions[transaction] = None
        try:
            yield transaction
            await transaction.commit()
        finally:
            transaction.release()
            self._open_transactions.pop(transaction, None)

    def _release_all(self) -> None:
        """The server undoes what the connections of a dead process leave."""
        for transaction in self._open_transactions:
            transaction.release()
