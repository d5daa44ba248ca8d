"""
A model of PostgreSQL: tables in memory, READ COMMITTED transactions, row locks, lost responses.

It knows no SQL. `memory_store` and `services_model` say what each statement means with the
operations of a transaction: get, scan, lock, insert, put, delete. Each operation belongs to a
statement, before which a fault may happen. The tests of the store run on this model and on
PostgreSQL.

A statement sees the rows that were committed when it started (PostgreSQL manual, 13.2.1). It reads
the newest version of a row that it locks, whether or not it waited, and the old version of all
others.
"""

import asyncio
from collections import defaultdict
from collections.abc import (
    AsyncIterator,
    Callable,
    Hashable,
    Iterator,
)
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from saga_engine.errors import (
    SerializationFailure,
    StoreLockTimeout,
    StoreRefused,
    StoreUnavailable,
)
from simulation.faults import FaultKind, FaultPoint
from simulation.process import SimulatedProcess
from simulation.rows import Row, RowRef


class NoStatement(RuntimeError):
    """A model uses rows outside of a statement, where no fault can happen: a bug of the model."""


POSITIONS = "event_position"
"""The sequence of the positions of events."""

TIME_ZERO = datetime(2026, 11, 15, tzinfo=UTC)
"""The database's time at virtual time 0."""


class MemoryDatabase:
    """
    One database.

    The callbacks in `on_commit` are called right before a transaction commits, those in
    `on_deadlock` before one is rolled back because of a deadlock. Rows are never changed in place:
    a commit replaces them.
    """

    def __init__(self) -> None:
        self.rows: defaultdict[str, dict[Any, Row]] = defaultdict(dict)
        self.locks: dict[RowRef, MemoryTransaction] = {}
        self.announcements: dict[MemoryTransaction, int] = {}
        self.on_commit: list[Callable[[MemoryTransaction], None]] = []
        self.on_deadlock: list[Callable[[MemoryTransaction], None]] = []
        self._sequences: defaultdict[str, int] = defaultdict(int)

    def next_value(self, sequence: str) -> int:
        """The next number of a sequence; a rollback does not return it."""
        self._sequences[sequence] += 1
        return self._sequences[sequence]

    @property
    def last_position(self) -> int:
        """The last position of an event that was drawn."""
        return self._sequences[POSITIONS]


class MemoryTransaction:
    """
    One transaction: its writes are private until the commit, its locks held until its end.

    `decided_runs` are the runs about which it has decided something, also that nothing changes.
    """

    def __init__(
        self, database: MemoryDatabase, process: SimulatedProcess, lock_timeout: float | None
    ) -> None:
        self.process = process
        self.is_active = True
        self.is_committed = False
        self.is_open_on_the_server = False  # with its first statement
        self._was_started = False
        self.writes: defaultdict[str, dict[Any, Row | None]] = defaultdict(dict)
        self.decided_runs: set[str] = set()
        self.locked_rows: list[RowRef] = []
        self._database = database
        self._lock_timeout = lock_timeout
        self._ended = asyncio.Event()
        self._waits_for: MemoryTransaction | None = None
        self._snapshot: dict[str, dict[Any, Row]] | None = None
        self._read_latest: set[RowRef] = set()
        self._in_statement = False

    @property
    def has_started(self) -> bool:
        """Whether the statements are one transaction; rows that it has locked show that, too."""
        return self._was_started or bool(self.locked_rows) or any(self.writes.values())

    @property
    def epoch(self) -> int | None:
        """The server is always the same one."""
        return 0

    async def begin(self) -> None:
        """Make the next statements one transaction."""
        self._was_started = True

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[None]:
        """
        Execute the block as one statement: it may fail before it starts, and has its own snapshot.

        Raises:
            StoreUnavailable: the connection was lost, or the statement was cancelled; the
                transaction is rolled back.
            StoreLockTimeout: another transaction holds a row for too long.
        """
        fault = await self.process.pass_point(FaultPoint.STATEMENT)
        self.is_open_on_the_server = self.has_started
        if fault is not None and fault.kind is FaultKind.TIMEOUT:
            await asyncio.sleep(fault.seconds)  # It keeps its locks.
        if fault is not None or not self.is_active:
            self.release()
            raise StoreUnavailable(
                "The simulated statement was cancelled, or its connection was lost."
            )
        if self._in_statement:
            raise NoStatement("Statements are executed one after another.")
        self._in_statement = True
        try:
            yield
        finally:
            self._in_statement = False
            self.is_open_on_the_server = self.has_started
            self.refresh_snapshot()

    def _require_statement(self) -> None:
        if not self._in_statement:
            raise NoStatement("A model uses rows outside of `statement()`.")

    def refresh_snapshot(self) -> None:
        """Take a new snapshot, as each statement does, also inside a function."""
        self._snapshot = None
        self._read_latest.clear()

    @property
    def now(self) -> datetime:
        """The time of the database."""
        return TIME_ZERO + timedelta(seconds=asyncio.get_running_loop().time())

    def next_value(self, sequence: str) -> int:
        """The next number of a sequence."""
        return self._database.next_value(sequence)

    def draw_position(self) -> int:
        """The next position of an event; until the end of the transaction, readers wait there."""
        self._database.announcements.setdefault(self, self._database.last_position)
        return self.next_value(POSITIONS)

    def current_horizon(self) -> int:
        """The position up to which no open transaction adds an event."""
        announced = self._database.announcements.values()
        return min(announced, default=self._database.last_position)

    def get(self, table: str, key: Hashable) -> Row | None:
        """Read a row: the version written here, or the committed one."""
        self._require_statement()
        writes = self.writes.get(table)
        if writes and key in writes:
            return writes[key]
        if self._snapshot is None or (table, key) in self._read_latest:
            return self._database.rows[table].get(key)
        return self._snapshot.get(table, {}).get(key)

    def scan(self, table: str) -> Iterator[tuple[Any, Row]]:
        """Read all rows of a table, in the order of insertion."""
        self._require_statement()
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
        """Whether no other transaction holds the row."""
        self._require_statement()
        return self._database.locks.get((table, key), self) is self

    def lock_unlocked(self, table: str, key: Hashable) -> None:
        """Lock a row that no other transaction holds."""
        self._require_statement()
        row_ref = (table, key)
        if row_ref not in self._database.locks:
            self._database.locks[row_ref] = self
            self.locked_rows.append(row_ref)

    async def lock(self, table: str, key: Hashable) -> Row | None:
        """Wait for the lock of a row; return its newest version, or None."""
        while not self.is_lockable(table, key):
            await self._wait_for(self._database.locks[table, key])
        self._read_latest.add((table, key))
        self.lock_unlocked(table, key)
        return self.get(table, key)

    async def lock_table(self, table: str) -> None:
        """Wait until no other transaction holds a row of a table."""
        self._require_statement()
        while holders := [
            holder
            for row_ref, holder in self._database.locks.items()
            if row_ref[0] == table and holder is not self
        ]:
            await self._wait_for(holders[0])

    async def insert(self, table: str, key: Hashable, row: Row) -> bool:
        """Insert a row unless its key exists; wait for a transaction that inserts the same key."""
        while True:
            self._read_latest.add((table, key))  # A unique index has no snapshot.
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
        """Insert a row; an existing key is an error."""
        if not await self.insert(table, key, row):
            raise StoreRefused(f"The key exists in the simulated table {table} (23505).")

    def put(self, table: str, key: Hashable, row: Row) -> None:
        """Write a locked row."""
        self._require_statement()
        self.writes[table][key] = row

    def delete(self, table: str, key: Hashable) -> None:
        """Delete a locked row."""
        self._require_statement()
        self.writes[table][key] = None

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Undo what the block has written if it raises, while the transaction is open."""
        before = {table: dict(writes) for table, writes in self.writes.items()}
        try:
            yield
        except Exception:
            if self.is_active:
                self.writes = defaultdict(dict, before)
            raise

    async def commit(self) -> None:
        """
        Commit.

        Raises:
            StoreUnavailable: the connection was lost; the caller cannot know whether it committed.
        """
        fault = await self.process.pass_point(FaultPoint.COMMIT)
        if not self.is_active or (fault is not None and fault.kind is FaultKind.DISCONNECT):
            self.release()
            raise StoreUnavailable("The simulated connection was lost before the commit.")
        for callback in self._database.on_commit:
            callback(self)
        for table, writes in self.writes.items():
            rows = self._database.rows[table]
            for key, row in writes.items():
                if row is None:
                    rows.pop(key, None)
                else:
                    rows[key] = row
        self.is_committed = True
        self.release()
        if fault is not None:
            if fault.kind is FaultKind.CRASH_AFTER:
                self.process.crash(fault)
            raise StoreUnavailable("The simulated connection was lost after the commit.")

    def release(self) -> None:
        """Discard what is not committed and release all locks."""
        self.is_active = False
        self._database.announcements.pop(self, None)
        for row_ref in self.locked_rows:
            if self._database.locks.get(row_ref) is self:
                del self._database.locks[row_ref]
        self.locked_rows = []
        self._ended.set()

    def _is_deadlocked_by(self, holder: "MemoryTransaction") -> bool:
        """Whether a transaction that this one begins to wait for waits for this one."""
        waiting: MemoryTransaction | None = holder
        while waiting is not None and waiting is not self and waiting.is_active:
            waiting = waiting._waits_for  # noqa: SLF001 - another instance
        return waiting is self

    async def _wait_for(self, holder: "MemoryTransaction") -> None:
        if self._is_deadlocked_by(holder):
            for callback in self._database.on_deadlock:
                callback(self)
            self.release()
            raise SerializationFailure("A deadlock in the simulated database (40P01).")
        if self._snapshot is None:
            self._snapshot = {table: dict(rows) for table, rows in self._database.rows.items()}
        self._waits_for = holder
        try:
            async with asyncio.timeout(self._lock_timeout):
                await holder._ended.wait()  # noqa: SLF001 - another instance
        except TimeoutError:
            self.release()
            raise StoreLockTimeout(
                "Another transaction holds a row of the simulated database."
            ) from None
        finally:
            self._waits_for = None
        if not self.is_active:  # Both ended at the same time.
            raise StoreUnavailable("The simulated connection was lost while it waited.")
