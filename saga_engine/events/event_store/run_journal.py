"""
The journals of runs as events: each run is a stream, `run-<run id>`.

Only the engine's database has them. A row of the journal has the events of one transaction, with
consecutive positions; no other row has a position between them. So the only row that can begin at
or before a position and end after it is the last one that begins there. A row may have no events:
readers pass over it, or a page of such rows would be the end of a stream.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from saga_engine.events.event_store.append import RUN_PREFIX
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.event_store.recorded import Recorded
from saga_engine.postgres.statement import Transaction, text
from saga_engine.settings import Settings
from saga_engine.store.journal import stored_events

_SCHEMA_VERSION = 1


async def read(
    tx: Transaction, log: EventLog, stream: str, after: int, settings: Settings
) -> list[Recorded]:
    """Read the next events of a run after a row of its journal, in order; whole rows."""
    run_id = _run_id(stream)
    if run_id is None or not log.has_journal:
        return []
    parameters = {
        "run_id": run_id,
        "after": after,
        "max_events": settings.event_batch_size,
        "max_bytes": settings.event_batch_bytes,
    }
    return [event for row in await tx.execute(_READ, parameters) for event in _events(log, row)]


async def read_range(
    tx: Transaction, log: EventLog, parameters: Mapping[str, Any]
) -> tuple[list[Recorded], int]:
    """
    Read the events of all runs in a range of positions, in order.

    Args:
        tx: at READ COMMITTED.
        log: of a database with a journal.
        parameters: `after` and `until` are the range; `types`, `streams`, `max_events` and
            `max_bytes` limit what is read of it, see `log_page`.

    Returns:
        The events, and up to which position everything was read.
    """
    rows = (await tx.execute(_READ_RANGE, parameters)).all()
    after, until, types = parameters["after"], parameters["until"], parameters["types"]
    read_until = after
    events = []
    for *row, _ in rows:
        for event in _events(log, row):
            read_until = event.position
            if after < event.position <= until and (types is None or event.type in types):
                events.append(event)
    found = rows[0][-1] if rows else 0
    is_complete = len(rows) == found < parameters["max_events"]
    return events, until if is_complete else min(read_until, until)


def is_run(stream: str) -> bool:
    """Whether a stream is a run's."""
    return stream.startswith(RUN_PREFIX)


def _run_id(stream: str) -> str | None:
    try:
        return str(UUID(stream.removeprefix(RUN_PREFIX)))
    except ValueError:
        return None


def _events(log: EventLog, row: Sequence[Any]) -> Iterator[Recorded]:
    run_id: str = row[0]
    revision: int = row[1]
    recorded_at: datetime = row[2]
    stream = f"{RUN_PREFIX}{run_id}"
    for place, event in enumerate(stored_events(revision, recorded_at, row[3], row[4])):
        metadata = event.metadata
        yield Recorded(
            stream=stream,
            version=revision,
            place=place,
            position=event.position,
            type=event.type,
            schema_version=_SCHEMA_VERSION,
            recorded_at=recorded_at,
            id=log.event_id(stream, revision, place, recorded_at),
            data=event.data,
            correlation_id=run_id,
            causation_id=metadata.get("causation_id"),
            actor=metadata.get("sender") or metadata.get("role"),
        )


_READ = text(
    """
    SELECT run_id, revision, recorded_at, position, events
    FROM (
        SELECT r.*,
            sum(octet_length(events)) OVER (ORDER BY revision) - octet_length(events) AS before
        FROM (
            SELECT run_id::text AS run_id, revision, recorded_at, position, events::text AS events
            FROM saga_engine.journal
            WHERE run_id = CAST(:run_id AS uuid) AND revision > :after AND events <> '[]'
            ORDER BY revision LIMIT :max_events) AS r) AS page
    WHERE before < :max_bytes ORDER BY revision"""
)

# `found` is how many rows there are before the limits of events and of bytes. Only the rows that
# are returned become text: the cast costs more than the rest of the statement.
_READ_RANGE = text(
    """
    SELECT run_id, revision, recorded_at, position, events, found
    FROM (
        SELECT r.*, sum(octet_length(events)) OVER (ORDER BY position) - octet_length(events)
            AS bytes_before
        FROM (
            SELECT run_id::text AS run_id, revision, recorded_at, position, events::text AS events,
                found
            FROM (
                SELECT selected.*, count(*) OVER () AS found,
                    sum(jsonb_array_length(events)) OVER (ORDER BY position)
                        - jsonb_array_length(events) AS events_before
                FROM (
                    SELECT run_id, revision, recorded_at, position, events
                    FROM saga_engine.journal
                    WHERE position >= coalesce((
                            SELECT first.position FROM saga_engine.journal AS first
                            WHERE first.position <= :after ORDER BY first.position DESC LIMIT 1), 0)
                        AND position <= :until
                        AND position + jsonb_array_length(events) > CAST(:after AS bigint) + 1
                        AND events <> '[]'
                        AND (CAST(:types AS text[]) IS NULL OR EXISTS (
                            SELECT FROM jsonb_array_elements(events) AS event
                            WHERE event->>'type' = ANY (CAST(:types AS text[]))))
                        AND (CAST(:streams AS text[]) IS NULL
                            OR 'run-' || run_id LIKE ANY (CAST(:streams AS text[])))
                    ORDER BY position LIMIT :max_events) AS selected) AS counted
            WHERE events_before < :max_events) AS r) AS page
    WHERE bytes_before < :max_bytes ORDER BY position"""
)
