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
from collections import defaultdict, namedtuple
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Hashable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any, TypeAlias

import orjson

from saga_engine.errors import StoreBusy, StoreRefused, StoreUnavailable
from simulation.faults import Kind, Point
from simulation.process import Process

Row: TypeAlias = dict[str, Any]
Place: TypeAlias = tuple[str, Any]
"""A row's table and its key."""
Answer: TypeAlias = Callable[["Transaction", Any], Awaitable[Sequence[Any] | int]]

BEGINNING = datetime(2026, 11, 15, tzinfo=UTC)
"""When virtual time is 0."""


class Answers(dict[int, Answer]):
    """
    What statements mean, by the identity of each; a statement lives as long as its module.

    `templates` are the texts of which statements are made as they are needed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.templates: dict[re.Pattern[str], Answer] = {}

    def to(self, module: ModuleType, *names: str) -> Callable[[Answer], Answer]:
        """Declare what statements of *module* mean, by their names, which need not be public."""

        def declare(answer: Answer) -> Answer:
            self.update((id(vars(module)[name]), answer) for name in names)
            return answer

        return declare

    def to_template(self, module: ModuleType, name: str) -> Callable[[Answer], Answer]:
        """Declare what the statements mean that are made of a text of *module* and a `month`."""

        def declare(answer: Answer) -> Answer:
            pattern = re.escape(vars(module)[name]).replace(
                re.escape("{month}"), r"(?P<month>\w+?)", 1
            )
            pattern = pattern.replace(re.escape("{month}"), "(?P=month)")
            self.templates[re.compile(pattern)] = answer
            return answer

        return declare


def row_type(names: str) -> Callable[..., Any]:
    """Make a row whose columns are read by name."""
    return namedtuple("Row", names)  # noqa: PYI024 - a tuple as SQLAlchemy's


def jsonb(text: str) -> str:
    """Keep JSON as jsonb does: the keys of its objects come back in another order."""
    return orjson.dumps(orjson.loads(text), option=orjson.OPT_SORT_KEYS).decode()


def columns(names: Mapping[str, str], arguments: Mapping[str, Any]) -> Iterable[Row]:
    """Turn arrays side by side into rows; *names* are the columns by the names of the arrays."""
    arrays = [arguments[array] for array in names]
    for values in zip(*arrays, strict=True):
        yield dict(zip(names.values(), values, strict=True))


class Tables:
    """
    One database that knows some statements.

    Rows are never changed in place: a transaction that puts a row replaces it when it commits.
    `committed` are told of each transaction right before its commit happens.
    """

    def __init__(self, *known: Answers) -> None:
        self._answers = {name: answer for each in known for name, answer in each.items()}
        self._templates = {
            pattern: answer for each in known for pattern, answer in each.templates.items()
        }
        self.rows: defaultdict[str, dict[Any, Row]] = defaultdict(dict)
        self.locks: dict[Place, Transaction] = {}
        self.committed: list[Callable[[Transaction], None]] = []
        self._numbers: defaultdict[str, int] = defaultdict(int)

    def answer(self, statement: object, arguments: Any) -> tuple[Answer, Any]:
        """Find what a statement means, and its arguments with the `month` that it names."""
        known = self._answers.get(id(statement))
        if known is not None:
            return known, arguments
        for pattern, made in self._templates.items():
            if named := pattern.fullmatch(str(statement)):
                return made, {**(arguments or {}), **named.groupdict()}
        raise KeyError(f"The model does not know the statement {statement}.")

    def number(self, sequence: str) -> int:
        """Give the next number of a sequence; rolling back does not give it back."""
        self._numbers[sequence] += 1
        return self._numbers[sequence]


class Result:
    """What a statement returned, read as SQLAlchemy's results are."""

    def __init__(self, answer: Sequence[Any] | int) -> None:
        self._rows = [] if isinstance(answer, int) else answer
        self.rowcount = answer if isinstance(answer, int) else len(answer)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def all(self) -> list[Any]:
        return list(self._rows)

    def first(self) -> Any:
        return self._rows[0] if self._rows else None

    one_or_none = first

    def one(self) -> Any:
        [row] = self._rows
        return row

    def scalars(self) -> Iterable[Any]:
        return [row[0] for row in self._rows]

    def scalar_one(self) -> Any:
        return self.one()[0]

    def scalar(self) -> Any:
        return self._rows[0][0] if self._rows else None

    scalar_one_or_none = scalar


class Transaction:
    """
    One transaction: what it writes is its own until it commits, what it locks it keeps to its end.

    It is what the engine takes for a connection inside a transaction.
    """

    def __init__(self, tables: Tables, process: Process, patience: float | None) -> None:
        self.process = process
        self.is_active = True
        self.invalidated = False
        self.info: dict[str, Any] = {}  # of a session; what is not known of it is not in there
        self.writes: defaultdict[str, dict[Any, Row | None]] = defaultdict(dict)
        self.locked: list[Place] = []
        self._tables = tables
        self._patience = patience
        self._ended = asyncio.Event()
        self._snapshot: dict[str, dict[Any, Row]] | None = None
        self._newest: set[Place] = set()

    async def execute(self, statement: object, arguments: Any = None) -> Result:
        """
        Answer one of the statements that are known.

        Raises:
            StoreUnavailable: the connection was cut, or the statement took too long; nothing of
                the transaction happens.
            StoreBusy: somebody else holds a row for too long.
        """
        fault = await self.process.reach(Point.STATEMENT)
        if fault is not None and fault.kind is Kind.TIMEOUT:
            await asyncio.sleep(fault.seconds)  # what is locked stays locked
        if fault is not None or not self.is_active:
            self.end()
            raise StoreUnavailable("The simulated statement was cancelled, or cut off.")
        answer, arguments = self._tables.answer(statement, arguments)
        try:
            return Result(await answer(self, arguments))
        finally:
            self.look_again()

    def look_again(self) -> None:
        """See what is committed by now, as each statement does, also one inside a function."""
        self._snapshot = None
        self._newest.clear()

    def get_transaction(self) -> "Transaction":
        """Itself: SQLAlchemy tells connections and transactions apart."""
        return self

    @property
    def now(self) -> datetime:
        """The database's clock."""
        return BEGINNING + timedelta(seconds=asyncio.get_running_loop().time())

    def number(self, sequence: str) -> int:
        """Give the next number of a sequence."""
        return self._tables.number(sequence)

    def get(self, table: str, key: Hashable) -> Row | None:
        """Look at a row: its own, or the committed one."""
        written = self.writes.get(table)
        if written and key in written:
            return written[key]
        if self._snapshot is None or (table, key) in self._newest:
            return self._tables.rows[table].get(key)
        return self._snapshot.get(table, {}).get(key)

    def every(self, table: str) -> Iterator[tuple[Any, Row]]:
        """Look at all rows of a table, in the order they were put there."""
        written = self.writes.get(table) or {}
        known = self._tables.rows if self._snapshot is None else self._snapshot
        rows = known.get(table, {})
        for key, row in rows.items():
            if key not in written:
                yield key, row
        for key, changed in written.items():
            if changed is not None:
                yield key, changed

    def free(self, table: str, key: Hashable) -> bool:
        """Whether nobody else holds the row."""
        return self._tables.locks.get((table, key), self) is self

    def grab(self, table: str, key: Hashable) -> None:
        """Lock a row that is free."""
        place = (table, key)
        if place not in self._tables.locks:
            self._tables.locks[place] = self
            self.locked.append(place)

    async def lock(self, table: str, key: Hashable) -> Row | None:
        """Lock a row, waiting for whoever has it; the row as it is then, if it is there."""
        while not self.free(table, key):
            await self._wait(self._tables.locks[table, key])
        self._newest.add((table, key))
        self.grab(table, key)
        return self.get(table, key)

    async def lock_table(self, table: str) -> None:
        """Wait until nobody holds a row of a table."""
        while others := [
            holder
            for place, holder in self._tables.locks.items()
            if place[0] == table and holder is not self
        ]:
            await self._wait(others[0])

    async def insert(self, table: str, key: Hashable, row: Row) -> bool:
        """Put a row unless its key is taken, waiting for whoever is about to take it."""
        while True:
            self._newest.add((table, key))  # an index has no snapshot
            holder = self._tables.locks.get((table, key), self)
            if holder is not self and key in holder.writes[table]:
                await self._wait(holder)
            elif self.get(table, key) is not None:
                return False
            elif holder is not self:
                await self._wait(holder)
            else:
                self.grab(table, key)
                self.put(table, key, row)
                return True

    async def insert_new(self, table: str, key: Hashable, row: Row) -> None:
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
        fault = await self.process.reach(Point.COMMIT)
        if not self.is_active or (fault is not None and fault.kind is Kind.CUT):
            self.end()
            raise StoreUnavailable("The simulated connection was cut before the commit.")
        for told in self._tables.committed:
            told(self)
        for table, written in self.writes.items():
            rows = self._tables.rows[table]
            for key, row in written.items():
                if row is None:
                    rows.pop(key, None)
                else:
                    rows[key] = row
        self.end()
        if fault is not None:
            if fault.kind is Kind.CRASH_AFTER:
                self.process.die(fault)
            raise StoreUnavailable("The simulated connection was cut after the commit.")

    def end(self) -> None:
        """Forget what is not committed and let go of everything that is locked."""
        self.is_active = False
        for place in self.locked:
            if self._tables.locks.get(place) is self:
                del self._tables.locks[place]
        self.locked = []
        self._ended.set()

    async def _wait(self, holder: "Transaction") -> None:
        if self._snapshot is None:
            self._snapshot = {table: dict(rows) for table, rows in self._tables.rows.items()}
        try:
            async with asyncio.timeout(self._patience):
                await holder._ended.wait()  # noqa: SLF001 - another of its own kind
        except TimeoutError:
            self.end()
            raise StoreBusy("Somebody else holds a row of the simulated database.") from None
        if not self.is_active:  # both ended at once: it can lock nothing any more
            raise StoreUnavailable("The simulated connection was cut while it waited.")


def name_of(tx: Transaction, definition_id: int) -> tuple[str, int, str]:
    """Look up the name, version and fingerprint of a definition."""
    for _, row in tx.every("definition"):
        if row["id"] == definition_id:
            return row["name"], row["version"], row["fingerprint"]
    raise KeyError(definition_id)


class Database:
    """
    One process's way to a database.

    Args:
        patience: seconds to wait for a row that somebody else holds; None: as long as it takes.
    """

    def __init__(self, tables: Tables, process: Process, patience: float | None = None) -> None:
        self._tables = tables
        self._process = process
        self._patience = patience
        self._open: dict[Transaction, None] = {}
        process.at_end(self._end_all)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Open one transaction: committed when the block ends, undone when it raises."""
        transaction = Transaction(self._tables, self._process, self._patience)
        self._open[transaction] = None
        try:
            yield transaction
            await transaction.commit()
        finally:
            transaction.end()
            self._open.pop(transaction, None)

    def _end_all(self) -> None:
        """The server undoes what the connections of a dead process leave."""
        for transaction in self._open:
            transaction.end()
