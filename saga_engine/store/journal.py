"""
The journal: the events of each run, appended in the transaction that decided them, never changed.

Folding the events of a run with `evolve` gives the run (P5). Positions are assigned before their
transactions commit, so a reader that continues after the highest position it has seen would miss
events. A reader of the whole journal goes by (transaction_id, position) below the oldest
transaction that is still open (PostgreSQL manual, 9.28.9).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from saga_engine.decider.events import Event
from saga_engine.postgres.statement import Columns, Transaction, text
from saga_engine.store.event_data import serialize_event
from saga_engine.store.json_column import dumps


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """One event to append; `revision` numbers the events of a run from 1."""

    run_id: str
    revision: int
    event: Event
    recorded_at: datetime
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """One event as it is stored; `deserialize_event` makes an Event of its type and data."""

    revision: int
    type: str
    recorded_at: datetime
    data: dict[str, Any]
    metadata: dict[str, Any]
    position: int


async def append(tx: Transaction, events: Sequence[NewEvent]) -> None:
    """
    Append events of runs that this transaction has locked or inserted.

    Raises:
        StoreRefused: a run has an event with that revision; it was not locked.
    """
    if not events:
        return
    await tx.execute(_APPEND, event_columns(events))


def event_columns(events: Sequence[NewEvent]) -> Columns:
    """Write events as rows, in order."""
    encoded = [serialize_event(entry.event) for entry in events]
    return {
        "run_id": [entry.run_id for entry in events],
        "revision": [entry.revision for entry in events],
        "recorded_at": [entry.recorded_at for entry in events],
        "type": [name for name, _ in encoded],
        "data": [dumps(data) for _, data in encoded],
        "metadata": [dumps(entry.metadata) for entry in events],
    }


async def read(tx: Transaction, run_id: str) -> list[StoredEvent]:
    """Read the events of a run, in order."""
    rows = await tx.execute(_READ, {"run_id": run_id})
    return [
        StoredEvent(
            revision=revision,
            type=name,
            recorded_at=recorded_at,
            data=orjson.loads(data),
            metadata=orjson.loads(metadata),
            position=position,
        )
        for revision, name, recorded_at, data, metadata, position in rows
    ]


_APPEND = text(
    """
    INSERT INTO saga_engine.event (run_id, revision, recorded_at, type, data, metadata)
    SELECT u.run_id, u.revision, u.recorded_at, u.type, u.data::jsonb, u.metadata::jsonb
    FROM unnest(CAST(:run_id AS uuid[]), CAST(:revision AS integer[]),
        CAST(:recorded_at AS timestamptz[]), CAST(:type AS text[]), CAST(:data AS text[]),
        CAST(:metadata AS text[])) AS u(run_id, revision, recorded_at, type, data, metadata)"""
)

_READ = text(
    """
    SELECT revision, type, recorded_at, data::text, metadata::text, position
    FROM saga_engine.event WHERE run_id = CAST(:run_id AS uuid) ORDER BY revision"""
)
