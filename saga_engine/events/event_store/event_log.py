"""
The identity of a database's event log, and the events of it as they are read.

The id of an event is a UUIDv5 of the log's id and of what the event's row never changes. It is the
same in every read, and needs no column. An event that takes the place of one that a failover has
lost has another time, and so another id.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.event_store.stored_fields import StoredContent, StoredFields, event_id
from saga_engine.postgres.statement import Transaction, text


@dataclass(frozen=True, slots=True)
class EventLog:
    """
    The log of a database.

    Args:
        id: different for each database.
        has_journal: whether the database is the engine's, with the journals of runs.
    """

    id: UUID
    has_journal: bool = False

    @classmethod
    async def load(cls, tx: Transaction) -> Self:
        """Read the identity of a database's log."""
        found, has_journal = (await tx.execute(_LOAD)).one()
        return cls(UUID(found), has_journal)

    @staticmethod
    async def runs_complete_from(tx: Transaction) -> int:
        """Return the position from which on all events of runs are stored; see retention."""
        position: int = (await tx.execute(_RUNS_COMPLETE_FROM)).scalar_one()
        return position

    def event_id(self, stream: str, version: int, place: int, recorded_at: datetime) -> UUID:
        """Make the id of an event of this log."""
        return event_id(self.id, stream, version, place, recorded_at)

    def recorded(self, row: Sequence[Any]) -> Recorded:
        """
        Make an event of a row. Its id, data and origin are made when they are first read.

        Args:
            row: stream, version, place, position, recorded_at, type, schema_version, and data and
                metadata as JSON; further columns are ignored.
        """
        event = object.__new__(Recorded)
        for set_field, value in zip(_SET_COLUMNS, row, strict=False):
            set_field(event, value)
        set_content(event, StoredContent(self.id, row[7], row[8]))
        return event


# The constructor of a frozen dataclass takes several times as long, and needs all fields.
_SET_COLUMNS = tuple(
    vars(Recorded)[name].__set__
    for name in (
        *("stream", "version", "place", "position", "recorded_at", "type", "schema_version"),
    )
)
set_content = vars(StoredFields)["_content"].__set__
"""Gives an event what its data is made of, when it is made without its constructor."""

_LOAD = text(
    "SELECT id::text, to_regclass('saga_engine.journal') IS NOT NULL FROM saga_engine.event_log"
)
_RUNS_COMPLETE_FROM = text("SELECT runs_complete_from FROM saga_engine.event_log")
