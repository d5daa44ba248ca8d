"""
The changes of a batch of events, folded: for each table and row one effect instead of many.

Folding gives the rows that the changes give one after the other. The effect on a row is at most one
change of each slot, and the slots are written in their order; for example an update after a delete
has nothing to change, and an upsert after an update cannot be merged with it, because a new row
starts with the upsert. What the slots cannot express starts a new batch.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from enum import IntEnum
from typing import Any

from sqlalchemy import Table

from saga_engine.events.change import Change, ChangeKind

_EXACT = Context(prec=150_000, traps=[Inexact, InvalidOperation, Overflow])
"""More digits than a NUMERIC of PostgreSQL has, so a sum is never rounded."""


class Slot(IntEnum):
    """The changes of one row, in the order in which they are written."""

    DELETE = 0
    UPDATE = 1
    UPSERT = 2
    INSERT = 3
    DELETE_INSERTED = 4


SLOT_KINDS: Mapping[Slot, ChangeKind] = {
    Slot.DELETE: ChangeKind.DELETE,
    Slot.UPDATE: ChangeKind.UPDATE,
    Slot.UPSERT: ChangeKind.UPSERT,
    Slot.INSERT: ChangeKind.INSERT,
    Slot.DELETE_INSERTED: ChangeKind.DELETE,
}


@dataclass(slots=True)
class RowChange:
    """What one slot does to a row."""

    put: dict[str, Any] = field(default_factory=dict)
    add: dict[str, Any] = field(default_factory=dict)

    def apply(self, change: Change) -> None:
        """Continue with a later change of the same row."""
        for name, value in change.put.items():
            self.put[name] = value
            self.add.pop(name, None)
        for name, value in change.add.items():
            if name in self.put:
                self.put[name] = _sum(self.put[name], value)
            else:
                self.add[name] = _sum(self.add.get(name), value)


def _sum(first: Any, second: Any) -> Any:
    if first is None:
        return second
    if isinstance(first, Decimal):
        return _EXACT.add(first, second)
    return first + second


Row = dict[Slot, RowChange]
"""The effect on one row."""


class ChangeBatch:
    """Changes of several tables, folded for each row."""

    def __init__(self) -> None:
        self._tables: dict[Table, dict[tuple[Any, ...], Row]] = {}

    def __bool__(self) -> bool:
        return bool(self._tables)

    def fold(self, change: Change) -> bool:
        """Add a change; False, and nothing is added, when it cannot be folded with those before."""
        rows = self._tables.setdefault(change.table, {})
        row = rows.get(change.key)
        if row is None:
            row = rows[change.key] = {}
        return _FOLDS[change.kind](row, change)

    def rows(self, table: Table, slot: Slot) -> Iterator[tuple[tuple[Any, ...], RowChange]]:
        """The key and the change of each row of a table that has one in *slot*."""
        for key, row in self._tables.get(table, {}).items():
            if slot in row:
                yield key, row[slot]


def _fold_delete(row: Row, _change: Change) -> bool:
    if Slot.INSERT in row:  # it would fail if the row existed, so it has to be executed
        row[Slot.DELETE_INSERTED] = RowChange()
        return True
    row.clear()
    row[Slot.DELETE] = RowChange()
    return True


def _fold_update(row: Row, change: Change) -> bool:
    if Slot.DELETE_INSERTED in row:
        return True
    for slot in (Slot.INSERT, Slot.UPSERT, Slot.UPDATE):
        if slot in row:
            row[slot].apply(change)
            return True
    if Slot.DELETE not in row:
        row[Slot.UPDATE] = _row_change(change)
    return True


def _fold_upsert(row: Row, change: Change) -> bool:
    if Slot.DELETE_INSERTED in row:
        return False
    for slot in (Slot.INSERT, Slot.UPSERT):
        if slot in row:
            row[slot].apply(change)
            return True
    row[Slot.UPSERT] = _row_change(change)
    return True


def _fold_insert(row: Row, change: Change) -> bool:
    if row.keys() & {Slot.INSERT, Slot.UPSERT}:
        return False
    row[Slot.INSERT] = _row_change(change)
    return True


def _row_change(change: Change) -> RowChange:
    return RowChange(dict(change.put), dict(change.add))


_FOLDS = {
    ChangeKind.DELETE: _fold_delete,
    ChangeKind.UPDATE: _fold_update,
    ChangeKind.UPSERT: _fold_upsert,
    ChangeKind.INSERT: _fold_insert,
}
