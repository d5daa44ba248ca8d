"""
The journal: the events of each run, appended by the batch that decided them, never changed.

Folding the events of a run with `evolve` gives the run (P5). A batch appends one row for each run
it has decided about, with the events of all these decisions (`batch_append`). The rows of a run are
numbered by its revision, from 1 without gaps. A row without events belongs to a wake-up at which
nothing was due: it is appended because it moved the timer.

Each event has a position, a number in the whole database: the row has that of its first event, and
the others follow. Positions are drawn before their transactions commit, so a reader of the whole
journal who continued after the highest position it has seen would miss events. It reads up to
`saga_engine.event_horizon()`: at and below it every transaction has ended. The positions of one run
rise, because a row is inserted only after the one before it is committed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Any, NamedTuple

import orjson

from saga_engine.decider.events import Event
from saga_engine.postgres.statement import Transaction, text
from saga_engine.store.event_data import serialize_event
from saga_engine.store.json_column import dumps


@dataclass(frozen=True, slots=True)
class NewDecision:
    """The events of one decision, in order, and what is known of its cause."""

    events: Sequence[Event]
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJournalRow:
    """One row to append: what one batch has decided of a run, in order."""

    run_id: str
    revision: int
    recorded_at: datetime
    decisions: Sequence[NewDecision]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """
    One event as it is stored; `deserialize_event` makes an Event of its type and data.

    `revision` is that of its row, and `metadata` that of the decision it belongs to.
    """

    revision: int
    position: int
    type: str
    recorded_at: datetime
    data: dict[str, Any]
    metadata: dict[str, Any]


def journal_columns(rows: Sequence[NewJournalRow]) -> dict[str, Any]:
    """
    Write rows as columns, in order.

    `position_count` is how many positions they take, `place` of a row how many those before it
    take: one for each event, and one for a row without events, so that no two rows share one.
    """
    events = [_events_data(row) for row in rows]
    *places, position_count = accumulate((max(len(each), 1) for each in events), initial=0)
    return {
        "run_id": [row.run_id for row in rows],
        "revision": [row.revision for row in rows],
        "recorded_at": [row.recorded_at for row in rows],
        "place": places,
        "events": [dumps(each) for each in events],
        "position_count": position_count,
    }


def _events_data(row: NewJournalRow) -> list[dict[str, Any]]:
    """
    The events of a row as data.

    The metadata of a decision is written once, with its first event.
    """
    data = []
    for decision in row.decisions:
        metadata: dict[str, Any] = {"metadata": decision.metadata}
        for event in decision.events:
            name, event_data = serialize_event(event)
            data.append({"type": name, "data": event_data, **metadata})
            metadata = {}
    return data


class StoredJournalRow(NamedTuple):
    """A row of the journal; `events` is the column as text."""

    revision: int
    recorded_at: datetime
    position: int
    events: str


async def read(tx: Transaction, run_id: str) -> list[StoredEvent]:
    """Read the events of a run, in order."""
    return [event for row in await read_rows(tx, run_id) for event in stored_events(*row)]


async def read_rows(tx: Transaction, run_id: str) -> list[StoredJournalRow]:
    """Read the rows of the journal of a run, in order."""
    return [StoredJournalRow(*row) for row in await tx.execute(_READ, {"run_id": run_id})]


def stored_events(
    revision: int, recorded_at: datetime, position: int, events: str
) -> Iterator[StoredEvent]:
    """Read the events of a row, in order; *events* is the column as text."""
    metadata: dict[str, Any] = {}
    for place, event in enumerate(orjson.loads(events)):
        metadata = event.get("metadata", metadata)
        yield StoredEvent(
            revision=revision,
            position=position + place,
            type=event["type"],
            recorded_at=recorded_at,
            data=event["data"],
            metadata=metadata,
        )


_READ = text(
    """
    SELECT revision, recorded_at, position, events::text
    FROM saga_engine.journal WHERE run_id = CAST(:run_id AS uuid) ORDER BY revision"""
)
