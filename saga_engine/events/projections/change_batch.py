"""
The changes of a batch of events, folded: for each table and row one effect instead of many.

Folding gives the rows that the changes give one after the other, unless PostgreSQL refuses them: a
constraint between rows can demand the order in which they were given. Foreign keys that change
rows themselves, such as ON DELETE CASCADE, are refused (`projection_rules`).

The effect on a row is at most one change of each slot, and the slots are written in their order;
for example an update after a delete has nothing to change, and an upsert after an update cannot be
merged with it, because a new row starts with the upsert. What the slots cannot express starts a new
batch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from enum import IntEnum
from typing import Any

from sqlalchemy import Table

from saga_engine.events.projections.change import Change, ChangeKind

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
class MergedChange:
    """What several changes of a row do together."""

    put: dict[str, Any]
    add: dict[str, Any]

    def merge(self, change: Change) -> None:
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


RowChange = Change | MergedChange
"""What one slot does to a row: mostly one change, which is kept as it is."""

Rows = dict[tuple[Any, ...], RowChange]
"""The changes of one slot by the keys of their rows."""


class ChangeBatch:
    """Changes of several tables, folded for each row."""

    def __init__(self) -> None:
        self._tables: dict[Table, tuple[Rows, ...]] = {}

    def __bool__(self) -> bool:
        return bool(self._tables)

    def fold(self, change: Change) -> bool:
        """Add a change; False, and nothing is added, when it cannot be folded with those before."""
        slots = self._tables.get(change.table)
        if slots is None:
            slots = self._tables[change.table] = tuple({} for _ in Slot)
        return _FOLDS[change.kind](slots, change)

    def rows(self, table: Table, slot: Slot) -> Rows:
        """The rows of a table that have a change in *slot*."""
        return self._tables[table][slot] if table in self._tables else {}


def _fold_delete(slots: Sequence[Rows], change: Change) -> bool:
    if change.key in slots[Slot.INSERT]:  # it would fail if the row existed, so it is executed
        slots[Slot.DELETE_INSERTED][change.key] = change
        return True
    slots[Slot.UPDATE].pop(change.key, None)
    slots[Slot.UPSERT].pop(change.key, None)
    slots[Slot.DELETE][change.key] = change
    return True


def _fold_update(slots: Sequence[Rows], change: Change) -> bool:
    if change.key in slots[Slot.DELETE_INSERTED]:
        return True
    for slot in (Slot.INSERT, Slot.UPSERT, Slot.UPDATE):
        if change.key in slots[slot]:
            _merge(slots[slot], change)
            return True
    if change.key not in slots[Slot.DELETE]:
        slots[Slot.UPDATE][change.key] = change
    return True


def _fold_upsert(slots: Sequence[Rows], change: Change) -> bool:
    if change.key in slots[Slot.DELETE_INSERTED]:
        return False
    for slot in (Slot.INSERT, Slot.UPSERT):
        if change.key in slots[slot]:
            _merge(slots[slot], change)
            return True
    slots[Slot.UPSERT][change.key] = change
    return True


def _fold_insert(slots: Sequence[Rows], change: Change) -> bool:
    if change.key in slots[Slot.INSERT] or change.key in slots[Slot.UPSERT]:
        return False
    slots[Slot.INSERT][change.key] = change
    return True


def _merge(rows: Rows, change: Change) -> None:
    row = rows[change.key]
    if not isinstance(row, MergedChange):
        row = rows[change.key] = MergedChange(dict(row.put), dict(row.add))
    row.merge(change)


_FOLDS: Mapping[ChangeKind, Callable[[Sequence[Rows], Change], bool]] = {
    ChangeKind.DELETE: _fold_delete,
    ChangeKind.UPDATE: _fold_update,
    ChangeKind.UPSERT: _fold_upsert,
    ChangeKind.INSERT: _fold_insert,
}
