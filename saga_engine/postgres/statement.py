"""
A statement as text, and the transactions that execute it.

Statements are SQL with parameters such as `:run_id`. The transactions of `store.database` and
`store.session` execute them with the driver (`pgbouncer.PoolerAwareConnection`). A statement in a
transaction of the user's code goes through that connection of SQLAlchemy. SQLAlchemy is imported
only where it is used: its import takes longer than a command of the command line.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import cached_property
from typing import Any, Protocol, TypeAlias

# As SQLAlchemy reads them: a cast, `value::type`, is not a parameter.
_PARAMETER = re.compile(r"(?<![:\w]):(\w+)(?!:)")


Columns: TypeAlias = Mapping[str, Sequence[Any]]
"""Several rows as parameters of a statement: for each column an array of its values."""


class Statement:
    """One SQL statement, with parameters such as `:name`."""

    def __init__(self, sql: str) -> None:
        self.sql = sql

    def __str__(self) -> str:
        return self.sql

    @cached_property
    def positional(self) -> tuple[str, Sequence[str]]:
        """The SQL with `$1`, `$2` and so on, and the names of these parameters in order."""
        names = list(dict.fromkeys(_PARAMETER.findall(self.sql)))
        return _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", self.sql), names

    @cached_property
    def sqlalchemy_clause(self) -> Any:
        """The statement for SQLAlchemy, created once because SQLAlchemy caches by its identity."""
        import sqlalchemy  # noqa: PLC0415 - see above

        return sqlalchemy.text(self.sql)


def text(sql: str) -> Statement:
    """Make a statement."""
    return Statement(sql)


class Rows(Protocol):
    """The rows of a statement, with the interface of SQLAlchemy's results."""

    @property
    def rowcount(self) -> int:
        """How many rows were returned, or changed."""

    def __iter__(self) -> Iterator[Any]: ...

    def all(self) -> Sequence[Any]:
        """Return all rows."""

    def first(self) -> Any:
        """Return the first row; None when there is none."""

    def one(self) -> Any:
        """Return the only row."""

    def one_or_none(self) -> Any:
        """Return the only row; None when there is none."""

    def scalar(self) -> Any:
        """Return the first column of the first row; None when there is none."""

    def scalar_one(self) -> Any:
        """Return the first column of the only row."""

    def scalar_one_or_none(self) -> Any:
        """Return the first column of the only row; None when there is none."""

    def scalars(self) -> Iterable[Any]:
        """Return the first column of all rows."""


class Transaction(Protocol):
    """An open transaction, which every function of the store takes."""

    async def execute(
        self, statement: Statement, parameters: Mapping[str, Any] | None = None
    ) -> Rows:
        """Execute one statement."""


class TransactionSource(Protocol):
    """Opens one transaction after another, as a pool or a session does."""

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Open one transaction: committed when the block ends, rolled back when it raises."""


class BatchOfStatements(Transaction, Protocol):
    """A transaction that begins with its `begin`; before, each statement commits on its own."""

    @property
    def has_started(self) -> bool:
        """Whether the statements are one transaction."""

    @property
    def epoch(self) -> int | None:
        """
        A number that is another one when the server may be another one, as after a failover.

        None: that is not known, because a pooler chooses the server of each transaction.
        """

    async def begin(self) -> None:
        """Make the next statements one transaction, unless they are."""


class BatchSource(TransactionSource, Protocol):
    """Opens transactions, and such batches."""

    def batch(self) -> AbstractAsyncContextManager[BatchOfStatements]:
        """Open a batch; a transaction that has started is rolled back if the block raises."""
