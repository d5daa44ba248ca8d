"""
Incidents: the places where runs wait for a person, in a table that can be searched.

The journal is what counts; these rows follow from its events, in the same transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, text

from saga_engine.saga.event import Event, IncidentOpened, IncidentResolved, RunAbandoned
from saga_engine.saga.vocabulary import Direction, Resolution
from saga_engine.store.database import Transaction
from saga_engine.store.tables import definition, incident, run


@dataclass(frozen=True, slots=True)
class StoredIncident:
    """One incident, and the run it belongs to."""

    run_id: str
    saga: str
    version: int
    key: str | None
    number: int
    step: str
    direction: Direction
    cause: str
    message: str
    opened_at: datetime
    resolved_at: datetime | None
    resolution: Resolution | None
    by: str | None
    reason: str | None


async def record(tx: Transaction, events: Sequence[tuple[str, Event]]) -> None:
    """Open and resolve what *events*, each with its run's id, say; other events are passed over."""
    opened = [(run_id, event) for run_id, event in events if isinstance(event, IncidentOpened)]
    if opened:
        await tx.execute(_OPEN, _opening(opened))
    closing = [
        (run_id, event)
        for run_id, event in events
        if isinstance(event, IncidentResolved | RunAbandoned)
    ]
    if closing:
        await tx.execute(_RESOLVE, _resolving(closing))


async def listing(
    tx: Transaction,
    *,
    limit: int,
    run_id: str | None = None,
    saga: str | None = None,
    resolved: bool = False,
) -> list[StoredIncident]:
    """Read the open incidents, the oldest first, or the resolved too; of one run, all it had."""
    query = (
        select(
            *(incident.c.run_id, definition.c.name, definition.c.version, run.c.key),
            *(incident.c.number, incident.c.step, incident.c.direction, incident.c.cause),
            *(incident.c.message, incident.c.opened_at, incident.c.resolved_at),
            *(incident.c.resolution, incident.c.by, incident.c.reason),
        )
        .join(run, run.c.run_id == incident.c.run_id)
        .join(definition, definition.c.id == run.c.definition_id)
        .order_by(incident.c.opened_at, incident.c.run_id, incident.c.number)
        .limit(limit)
    )
    if run_id is not None:
        query = query.where(incident.c.run_id == run_id)
    elif not resolved:
        query = query.where(incident.c.resolved_at.is_(None))
    if saga is not None:
        query = query.where(definition.c.name == saga)
    return [_incident(row) for row in await tx.execute(query)]


def _incident(columns: Sequence[Any]) -> StoredIncident:
    run_id, saga, version, key, number, step, direction, cause, message, opened_at, *end = columns
    resolved_at, resolution, by, reason = end
    return StoredIncident(
        *(run_id, saga, version, key, number, step, Direction(direction), cause, message),
        *(opened_at, resolved_at, Resolution(resolution) if resolution else None, by, reason),
    )


def _opening(opened: Sequence[tuple[str, IncidentOpened]]) -> dict[str, list[Any]]:
    return {
        "run_ids": [run_id for run_id, _ in opened],
        "numbers": [event.number for _, event in opened],
        "steps": [event.step for _, event in opened],
        "directions": [event.direction.value for _, event in opened],
        "causes": [event.cause for _, event in opened],
        "messages": [event.message for _, event in opened],
        "times": [event.opened_at for _, event in opened],
    }


def _resolving(
    closing: Sequence[tuple[str, IncidentResolved | RunAbandoned]],
) -> dict[str, list[Any]]:
    """An abandoned run closes all its incidents: those have no number here."""
    return {
        "run_ids": [run_id for run_id, _ in closing],
        "numbers": [getattr(event, "number", None) for _, event in closing],
        "resolutions": [
            Resolution.ABANDON.value if isinstance(event, RunAbandoned) else event.resolution
            for _, event in closing
        ],
        "by": [event.by for _, event in closing],
        "reasons": [event.reason for _, event in closing],
    }


_OPEN = text(
    """
    INSERT INTO saga_engine.incident (run_id, number, step, direction, cause, message, opened_at)
    SELECT * FROM unnest(CAST(:run_ids AS uuid[]), CAST(:numbers AS integer[]),
        CAST(:steps AS text[]), CAST(:directions AS text[]), CAST(:causes AS text[]),
        CAST(:messages AS text[]), CAST(:times AS timestamptz[]))"""
)

# The incident itself before those that are closed with the run, so that each keeps its own reason.
_RESOLVE = text(
    """
    UPDATE saga_engine.incident AS i
    SET resolved_at = clock_timestamp(), resolution = u.resolution, by = u.by, reason = u.reason
    FROM (
        SELECT DISTINCT ON (o.run_id, o.number) o.run_id, o.number, w.resolution, w.by, w.reason
        FROM unnest(CAST(:run_ids AS uuid[]), CAST(:numbers AS integer[]),
            CAST(:resolutions AS text[]), CAST(:by AS text[]), CAST(:reasons AS text[]))
            AS w(run_id, number, resolution, by, reason)
        JOIN saga_engine.incident AS o
            ON o.run_id = w.run_id AND (w.number IS NULL OR o.number = w.number)
        WHERE o.run_id = ANY (CAST(:run_ids AS uuid[])) AND o.resolved_at IS NULL
        ORDER BY o.run_id, o.number, w.number NULLS LAST
    ) AS u
    WHERE i.run_id = u.run_id AND i.number = u.number
        AND i.run_id = ANY (CAST(:run_ids AS uuid[]))"""
)
