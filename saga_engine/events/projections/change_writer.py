"""
The statements that write a folded batch: one for each table, kind of change and set of columns.

Each takes the rows as one array a column; many rows that are only inserted are copied. Rows are
removed from the last table to the first and created from the first to the last, so a table may
refer to those before it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

from sqlalchemy import Table

from saga_engine.events.projections.change import ChangeKind
from saga_engine.events.projections.change_batch import (
    SLOT_KINDS,
    ChangeBatch,
    RowChange,
    Rows,
    Slot,
)
from saga_engine.events.projections.table_shape import quoted, shape_of, sql_name
from saga_engine.postgres.statement import Columns, Statement, text
from saga_engine.store.database import SqlAlchemyTransaction

COPY_MIN_ROWS = 100
"""Rows from which on COPY is faster than INSERT; it asks for the types of the columns first."""

_MAX_STATEMENTS = 1000
"""Statements kept as text; a projection has a few for each of its functions."""


class ChangedColumns(NamedTuple):
    """What the rows of one statement have in common."""

    put: tuple[str, ...]
    add: tuple[str, ...]


KeyedChanges = list[tuple[tuple[Any, ...], RowChange]]


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows that one statement changes: their keys, and the changes with the same columns."""

    table: Table
    kind: ChangeKind
    columns: ChangedColumns
    rows: KeyedChanges


async def write_changes(
    tx: SqlAlchemyTransaction,
    batch: ChangeBatch,
    tables: Sequence[Table],
    shadows: Mapping[Table, Table] = MappingProxyType({}),
) -> None:
    """
    Write the changes of a batch.

    Args:
        tx: the transaction of the batch.
        batch: what the functions of the projection returned, folded.
        tables: the tables of the projection, in the order of its declaration.
        shadows: what is written instead of each of them; empty: they are.

    Raises:
        StoreRefused: PostgreSQL refuses a row.
    """
    for group in row_groups(batch, tables):
        table = shadows.get(group.table, group.table)
        if group.kind is ChangeKind.INSERT and len(group.rows) >= COPY_MIN_ROWS:
            await _copy(tx, table, group)
        else:
            statement = change_statement(table, group.kind, group.columns)
            await tx.execute(statement, _parameters(group.columns, group.rows))


async def _copy(tx: SqlAlchemyTransaction, table: Table, group: RowGroup) -> None:
    columns = group.columns
    names = [*shape_of(table).key, *columns.put, *columns.add]
    records = [
        (*key, *map(row.put.__getitem__, columns.put), *map(row.add.__getitem__, columns.add))
        for key, row in group.rows
    ]
    await tx.copy(table.name, table.schema, names, records)


def row_groups(batch: ChangeBatch, tables: Sequence[Table]) -> Iterator[RowGroup]:
    """The rows of a batch for each statement, in the order of execution."""
    for slot in Slot:
        kind = SLOT_KINDS[slot]
        for table in reversed(tables) if kind is ChangeKind.DELETE else tables:
            for columns, rows in _by_columns(batch.rows(table, slot)).items():
                if kind is not ChangeKind.UPDATE or any(columns):
                    yield RowGroup(table, kind, columns, rows)


def _by_columns(rows: Rows) -> dict[ChangedColumns, KeyedChanges]:
    groups: dict[ChangedColumns, KeyedChanges] = {}
    by_names: dict[tuple[str | None, ...], KeyedChanges] = {}  # the names of most rows are the same
    for key, change in rows.items():
        names = (*change.put, None, *change.add)
        group = by_names.get(names)
        if group is None:
            columns = ChangedColumns(tuple(sorted(change.put)), tuple(sorted(change.add)))
            group = by_names[names] = groups.setdefault(columns, [])
        group.append((key, change))
    return groups


def _parameters(columns: ChangedColumns, rows: KeyedChanges) -> Columns:
    keys = zip(*(key for key, _ in rows), strict=True)
    arrays: dict[str, Sequence[Any]] = {f"k{n}": list(values) for n, values in enumerate(keys)}
    for n, name in enumerate(columns.put):
        arrays[f"p{n}"] = [change.put[name] for _, change in rows]
    for n, name in enumerate(columns.add):
        arrays[f"a{n}"] = [change.add[name] for _, change in rows]
    return arrays


@lru_cache(maxsize=_MAX_STATEMENTS)
def change_statement(table: Table, kind: ChangeKind, columns: ChangedColumns) -> Statement:
    """The statement that does *kind* to rows of a table; its parameters are arrays."""
    return text(_WRITERS[kind](_Source(table, columns)))


class _Source:
    """The rows of a statement as a table, `c`, and the names of the columns that they are for."""

    def __init__(self, table: Table, columns: ChangedColumns) -> None:
        shape = shape_of(table)
        self.table = sql_name(table)
        self.key = {f"k{n}": name for n, name in enumerate(shape.key)}
        self.put = {f"p{n}": name for n, name in enumerate(columns.put)}
        self.add = {f"a{n}": name for n, name in enumerate(columns.add)}
        self._types = {
            parameter: shape.columns[name]
            for parameter, name in [*self.key.items(), *self.put.items(), *self.add.items()]
        }

    @property
    def rows(self) -> str:
        arrays = (f"CAST(:{p} AS {each.array_type}[])" for p, each in self._types.items())
        return f"unnest({', '.join(arrays)}) AS c({', '.join(self._types)})"

    def value(self, parameter: str) -> str:
        cast = self._types[parameter].cast
        return f"CAST(c.{parameter} AS {cast})" if cast else f"c.{parameter}"

    def where_key(self) -> str:
        return " AND ".join(f"r.{quoted(name)} = {self.value(p)}" for p, name in self.key.items())

    def insert(self) -> str:
        named = self.key | self.put | self.add
        columns = ", ".join(map(quoted, named.values()))
        values = ", ".join(map(self.value, named))
        return (
            f"INSERT INTO {self.table} AS r ({columns})"  # noqa: S608 - names are quoted
            f" SELECT {values} FROM {self.rows}"
        )

    def assignments(self, new_value: Callable[[str, str], str]) -> str:
        put = [f"{quoted(name)} = {new_value(p, name)}" for p, name in self.put.items()]
        add = [
            f"{quoted(name)} = coalesce(r.{quoted(name)}, 0) + {new_value(p, name)}"
            for p, name in self.add.items()
        ]
        return ", ".join([*put, *add])


def _delete(source: _Source) -> str:
    return (
        f"DELETE FROM {source.table} AS r"  # noqa: S608 - names are quoted
        f" USING {source.rows} WHERE {source.where_key()}"
    )


def _update(source: _Source) -> str:
    changed = source.assignments(lambda parameter, _name: source.value(parameter))
    return (
        f"UPDATE {source.table} AS r SET {changed}"  # noqa: S608 - names are quoted
        f" FROM {source.rows} WHERE {source.where_key()}"
    )


def _upsert(source: _Source) -> str:
    changed = source.assignments(lambda _parameter, name: f"excluded.{quoted(name)}")
    action = f"UPDATE SET {changed}" if changed else "NOTHING"
    key = ", ".join(map(quoted, source.key.values()))
    return f"{source.insert()} ON CONFLICT ({key}) DO {action}"


_WRITERS: Mapping[ChangeKind, Callable[[_Source], str]] = {
    ChangeKind.DELETE: _delete,
    ChangeKind.UPDATE: _update,
    ChangeKind.UPSERT: _upsert,
    ChangeKind.INSERT: _Source.insert,
}
