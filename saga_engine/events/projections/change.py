"""
Changes of rows as data: what a projection's function returns for an event.

A change names one row by its primary key. `insert` and `upsert` create the row, `put` and `add`
change one that exists, `delete` removes it. Values are checked when a change is made, so that the
error names the line of the author that made it.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import Table

from saga_engine.errors import DefinitionError
from saga_engine.events.projections.table_shape import TableProblem, TableShape, shape_of

_MAX_CHECKED = 1000
"""Combinations of columns whose check is remembered; a projection has a few."""

_NOTHING: Mapping[str, Any] = {}


class ChangeKind(StrEnum):
    """What a change does to its row."""

    INSERT = "insert"  # creates it; an error when it exists
    UPSERT = "upsert"  # creates it, or changes it
    UPDATE = "update"  # changes it; nothing when it does not exist
    DELETE = "delete"  # removes it; nothing when it does not exist


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """
    One change of one row.

    Args:
        table: one of the projection's tables.
        kind: what it does.
        key: the row's primary key: a value for each of its columns, in their order.
        put: the columns that get a value.
        add: the columns that a number is added to; a row without the column has 0.
    """

    table: Table
    kind: ChangeKind
    key: tuple[Any, ...]
    put: Mapping[str, Any] = field(default_factory=dict, repr=False)
    add: Mapping[str, Any] = field(default_factory=dict, repr=False)


def insert(table: Table, *, key: Mapping[str, Any], put: Mapping[str, Any] = _NOTHING) -> Change:
    """
    Create a row. The projection stops at an event whose row exists.

    Many rows are written with COPY, which no other change can be, so this is the fastest.

    Args:
        table: one of the projection's tables.
        key: a value for each column of its primary key.
        put: values of other columns; a column without one gets its default.

    Raises:
        DefinitionError: a column does not exist, or cannot hold its value.
    """
    return _change(ChangeKind.INSERT, table, key, put, _NOTHING)


def upsert(
    table: Table,
    *,
    key: Mapping[str, Any],
    put: Mapping[str, Any] = _NOTHING,
    add: Mapping[str, Any] = _NOTHING,
) -> Change:
    """
    Change a row, and create it when it does not exist.

    Args:
        table: one of the projection's tables.
        key: a value for each column of its primary key.
        put: columns that get a value.
        add: columns that a number is added to: integers, or NUMERIC. A new row has 0.

    Raises:
        DefinitionError: a column does not exist, cannot hold its value, or is needed by a new row.
    """
    return _change(ChangeKind.UPSERT, table, key, put, add)


def put(table: Table, *, key: Mapping[str, Any], values: Mapping[str, Any]) -> Change:
    """
    Give columns of a row new values. A row that does not exist is not created.

    Args:
        table: one of the projection's tables.
        key: a value for each column of its primary key.
        values: the columns and their values.

    Raises:
        DefinitionError: a column does not exist, or cannot hold its value.
    """
    return _change(ChangeKind.UPDATE, table, key, values, _NOTHING)


def add(table: Table, *, key: Mapping[str, Any], values: Mapping[str, Any]) -> Change:
    """
    Add numbers to columns of a row. A row that does not exist is not created.

    Args:
        table: one of the projection's tables.
        key: a value for each column of its primary key.
        values: the columns, integers or NUMERIC, and what is added; negative numbers subtract.

    Raises:
        DefinitionError: a column does not exist, or cannot be added to.
    """
    return _change(ChangeKind.UPDATE, table, key, _NOTHING, values)


def delete(table: Table, *, key: Mapping[str, Any]) -> Change:
    """
    Remove a row, if it exists.

    Args:
        table: one of the projection's tables.
        key: a value for each column of its primary key.

    Raises:
        DefinitionError: the key is not the table's.
    """
    return _change(ChangeKind.DELETE, table, key, _NOTHING, _NOTHING)


def check_names(
    shape: TableShape,
    kind: ChangeKind,
    *,
    key: Mapping[str, object] | frozenset[str],
    put: Mapping[str, object] | frozenset[str],
    add: Mapping[str, object] | frozenset[str],
) -> None:
    """
    Check which columns a change names.

    Raises:
        TableProblem: its columns are not those of the table, or not enough.
    """
    shape.check_key(key)
    shape.check_columns(put)
    shape.check_columns(add)
    shape.check_added(add)
    if both := sorted(set(put) & set(add)):
        raise TableProblem(
            f"{shape.name}.{both[0]} is both in put and in add.", "Keep one of them."
        )
    if kind in (ChangeKind.INSERT, ChangeKind.UPSERT):
        shape.check_required({*key, *put, *add})


def _change(
    kind: ChangeKind,
    table: Table,
    key: Mapping[str, Any],
    put: Mapping[str, Any],
    add: Mapping[str, Any],
) -> Change:
    try:
        shape = shape_of(table)
        for each in (key, put, add):
            if type(each) is not dict:
                shape.check_mapping(each)
        names = (kind, *key, None, *put, None, *add)
        if names not in shape.checked:
            check_names(shape, kind, key=key, put=put, add=add)
            if len(shape.checked) < _MAX_CHECKED:
                shape.checked.add(names)
        accepted_key = shape.accept(key)
        return Change(
            table=table,
            kind=kind,
            key=tuple([accepted_key[name] for name in shape.key]),
            put=shape.accept(put) if put else _NOTHING,
            add=shape.accept_added(add) if add else _NOTHING,
        )
    except TableProblem as problem:
        raise DefinitionError(str(problem), location=_caller(), fix=problem.fix) from None


def _caller() -> str:
    """`file:line` of the author's call of `upsert` or one of the other functions."""
    frame = sys._getframe(3)  # noqa: SLF001 - nothing else has the line
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
