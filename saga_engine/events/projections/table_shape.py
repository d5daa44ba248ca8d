"""
What declared changes must know of a table: its primary key, its columns, what a new row needs.

It is read from the table's SQLAlchemy declaration, once.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from sqlalchemy import Column, Table
from sqlalchemy.dialects.postgresql import asyncpg

from saga_engine.events.projections.column_types import ColumnType, ValueRefused, column_type
from saga_engine.nearest_name import did_you_mean

# Other dialects escape more: that of psycopg2 doubles a percent sign.
_PREPARER = asyncpg.dialect().identifier_preparer  # type: ignore[no-untyped-call]

_MAX_SHAPES = 1000
"""Tables whose shape is kept; a process has a few."""


class TableProblem(ValueError):
    """A table or its use breaks a rule; `fix` is the remedy."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem)
        self.fix = fix


@dataclass(frozen=True, slots=True, kw_only=True)
class TableShape:
    """
    The columns of one table.

    Args:
        name: for messages.
        key: the columns of the primary key, in its order.
        columns: the columns that declared changes can write.
        others: the names of the columns that they cannot write, and the reason for each.
        required: the columns without which no row can be inserted.
        not_null: the columns that take no None.
        summable: the columns that `add` works on.
        accepts: `ColumnType.accept` of each column, which is called for each value of each event.
        checked: names of columns that changes have used, which need not be checked again.
    """

    name: str
    key: tuple[str, ...]
    columns: Mapping[str, ColumnType]
    others: Mapping[str, str]
    required: frozenset[str]
    not_null: frozenset[str]
    summable: frozenset[str]
    accepts: Mapping[str, Callable[[Any], Any]] = field(compare=False, repr=False)
    checked: set[tuple[object, ...]] = field(default_factory=set, compare=False, repr=False)

    def check_mapping(self, values: object) -> None:
        """Raise TableProblem unless *values* has names of columns and their values."""
        if not isinstance(values, Mapping):
            raise TableProblem(
                f"A change of {self.name} got {type(values).__name__} instead of a dict.",
                'Give the names of columns and their values: {"id": event.order_id}.',
            )

    def check_key(self, names: Iterable[str]) -> None:
        """Raise TableProblem unless *names* are those of the primary key."""
        given, key = set(names), set(self.key)
        if given != key:
            wrong = min(given - key, default="")
            raise TableProblem(
                f"A change of {self.name} has the key {_listed(given)}, but the primary key is"
                f" {_listed(key)}.{did_you_mean(wrong, key - given)}",
                "Give a value for each of its columns: it identifies one row.",
            )

    def check_columns(self, names: Iterable[str]) -> None:
        """Raise TableProblem unless *names* are columns that a change can write."""
        known = (*self.columns, *self.others)
        for name in names:
            if name in self.columns and name not in self.key:
                continue
            if name in self.key:
                raise TableProblem(
                    f"A change of {self.name} writes {name}, which is part of its primary key.",
                    "Delete the row and insert another one.",
                )
            if name in self.others:
                raise TableProblem(
                    f"{self.name}.{name} cannot be written by a declared change: it"
                    f" {self.others[name]}.",
                    "Write it in a SQL handler: an async function with a third parameter,"
                    " the connection.",
                )
            raise TableProblem(
                f"{self.name} has no column {name!r}.{did_you_mean(name, known)}",
                f"Its columns are {_listed(known)}.",
            )

    def check_added(self, names: Iterable[str]) -> None:
        """Raise TableProblem unless *names* are columns that can be added to."""
        for name in names:
            if name not in self.summable:
                raise TableProblem(
                    f"{self.name}.{name} cannot be added to: it is not an integer or a NUMERIC"
                    " column without a default other than 0.",
                    "Use such a column, so that the order of additions does not matter, or `put`.",
                )

    def check_required(self, names: Iterable[str]) -> None:
        """Raise TableProblem unless *names* are enough for a new row."""
        if missing := self.required.difference(names):
            raise TableProblem(
                f"A row of {self.name} needs {_listed(missing)}, which the change lacks.",
                "Give a value, or change a row that exists with `put` or `add`.",
            )

    def accept(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Give values of columns as they are written; raise TableProblem if one is refused."""
        accepts = self.accepts
        try:
            return {
                name: self._null(name) if value is None else accepts[name](value)
                for name, value in values.items()
            }
        except ValueRefused:
            for name, value in values.items():
                self._explain(name, value)
            raise

    def accept_added(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """As `accept`, for numbers that are added."""
        for name, value in values.items():
            if value is None:
                problem = f"None cannot be added to {self.name}.{name}."
                raise TableProblem(problem, "Add a number.")
        return self.accept(values)

    def _null(self, name: str) -> Any:
        if name in self.not_null:
            raise TableProblem(f"{self.name}.{name} is NOT NULL, and got None.", "Give a value.")
        return None

    def _explain(self, name: str, value: Any) -> None:
        """Raise TableProblem if the column refuses the value."""
        try:
            if value is not None:
                self.columns[name].accept(value)
        except ValueRefused as refused:
            got = refused.got or type(value).__name__
            problem = f"{self.name}.{name} {refused}, and got {got}."
            raise TableProblem(problem, refused.fix) from None


def shape_of(table: Table) -> TableShape:
    """
    The shape of a table.

    Raises:
        TableProblem: it is not a table, or no change could name its rows by a primary key.
    """
    given: object = table
    if not isinstance(given, Table):
        raise TableProblem(
            f"A change got {type(given).__name__} instead of a table.",
            "Give a Table of SQLAlchemy Core; of a mapped class, its __table__.",
        )
    return _read(table)


def sql_name(table: Table) -> str:
    """The name of a table as SQL has it: quoted where it must be, with its schema."""
    return _PREPARER.format_table(table)


def quoted(name: str) -> str:
    """The name of a column as SQL has it."""
    return str(_PREPARER.quote(name))


@lru_cache(maxsize=_MAX_SHAPES)
def _read(table: Table) -> TableShape:
    if ":" in table.fullname:
        raise TableProblem(
            f"Table {table.fullname} has a colon in its name.",
            "Rename it, or write it in a SQL handler: an async function with a third parameter, the"
            " connection.",
        )
    key = tuple(column.name for column in table.primary_key.columns)
    if not key:
        raise TableProblem(
            f"Table {table.fullname} has no primary key.",
            "Declare one: each change names the row that it changes by its primary key.",
        )
    writable: dict[str, ColumnType] = {}
    others: dict[str, str] = {}
    for column in table.columns:
        found = column_type(column.type)
        if reason := _unwritable_reason(column, found):
            others[column.name] = reason
        elif found is not None:
            writable[column.name] = found
    for name in key:
        reason = others.get(name) or writable[name].key_problem
        if reason:
            raise TableProblem(
                f"{table.fullname}.{name} cannot be part of the primary key of a projection's"
                f" table: it {reason}.",
                "Use a column whose value the event has: an integer, a text, a UUID or a date.",
            )
    by_name = {column.name: column for column in table.columns}  # table.columns is by its keys
    not_null = frozenset(column.name for column in table.columns if not column.nullable)
    with_default = {column.name for column in table.columns if _has_default(column)}
    return TableShape(
        name=table.fullname,
        key=key,
        columns=writable,
        others=others,
        required=not_null - with_default,
        not_null=not_null,
        summable=frozenset(
            name
            for name, each in writable.items()
            if each.can_add and _starts_at_zero(by_name[name])
        ),
        accepts={name: each.accept for name, each in writable.items()},
    )


_ZERO = re.compile(r"'?0(\.0+)?'?")


def _unwritable_reason(column: Column[object], found: ColumnType | None) -> str:
    if ":" in column.name:
        return "has a colon in its name"
    if column.computed is not None or column.identity is not None:
        return "gets its value from PostgreSQL"
    if column.default is not None or column.onupdate is not None:
        return "has a default of SQLAlchemy, which a rebuild would compute again"
    return "" if found else f"has the type {column.type!r}"


def _has_default(column: Column[object]) -> bool:
    return (
        column.server_default is not None
        or column.computed is not None
        or column.identity is not None
    )


def _starts_at_zero(column: Column[object]) -> bool:
    """Whether a new row without the column has 0, or NULL, which is added to as 0."""
    if column.server_default is None:
        return True
    default = getattr(column.server_default, "arg", None)
    return _ZERO.fullmatch(str(getattr(default, "text", default))) is not None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "empty"
