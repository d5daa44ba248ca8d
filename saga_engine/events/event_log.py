"""
The identity of a database's event log, and the events of it as they are read.

The id of an event is a UUIDv5 of the log's id and of what the event's row never changes. It is the
same in every read, and needs no column. An event that takes the place of one that a failover has
lost has another time, and so another id.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha1
from typing import Any, Self
from uuid import UUID

import orjson

from saga_engine.events.recorded import ORIGIN_NAMES, Recorded
from saga_engine.events.undecoded_event import UndecodedEvent
from saga_engine.postgres.statement import Transaction, text

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


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

    def event_id(self, stream: str, version: int, place: int, recorded_at: datetime) -> UUID:
        """Make the id of an event of this log."""
        microseconds = (recorded_at - _EPOCH) // _MICROSECOND
        name = f"{version}/{place}/{microseconds}/{stream}"
        # uuid5() of the library, at half its time: each event that is read needs an id.
        digest = sha1(self.id.bytes + name.encode(), usedforsecurity=False).digest()
        return UUID(int=int.from_bytes(digest[:16], "big"), version=5)

    def recorded(self, row: Sequence[Any]) -> Recorded:
        """
        Make an event of a row.

        Args:
            row: stream, version, place, position, recorded_at, type, schema_version, and data and
                metadata as JSON.
        """
        stream, version, place, position, recorded_at, name, schema_version, data, metadata = row
        try:
            decoded, kind = orjson.loads(data), Recorded
        except orjson.JSONDecodeError:
            decoded, kind = None, UndecodedEvent
        return kind(
            stream=stream,
            version=version,
            place=place,
            position=position,
            type=name,
            schema_version=schema_version,
            recorded_at=recorded_at,
            id=self.event_id(stream, version, place, recorded_at),
            data=decoded,
            **_origin(metadata),
        )


def _origin(metadata: str) -> dict[str, str]:
    """Read the origin of an event. Rows of other programs may have more, or something else."""
    try:
        known = orjson.loads(metadata)
    except orjson.JSONDecodeError:
        return {}
    return {name: known[name] for name in ORIGIN_NAMES if isinstance(known.get(name), str)}


_LOAD = text(
    "SELECT id::text, to_regclass('saga_engine.journal') IS NOT NULL FROM saga_engine.event_log"
)
