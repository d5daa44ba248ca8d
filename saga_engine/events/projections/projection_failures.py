"""
Events that a projection could not apply: the tables `projection_failure` and `parked_stream`.

A failure stays open until it is retried or skipped, by whom and why is kept with it. Of the
resolved ones a projection keeps the newest. All functions that a projector calls need the row of
the projection locked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.handlers.poison_event import PoisonEvent
from saga_engine.events.projections.projection_key import ProjectionKey
from saga_engine.postgres.statement import Transaction, text

MAX_ERROR_CHARACTERS = 2_000
MAX_TRACE_CHARACTERS = 8_000


class Resolution(StrEnum):
    """What an operator did about a failure."""

    RETRIED = "retried"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFailure:
    """
    A failure as it is stored; see PoisonEvent.

    Args:
        position: of the event.
        stream: of the event.
        stream_version: of the event.
        type: of the event.
        error: see PoisonEvent.
        trace: see PoisonEvent.
        attempts: how often it was tried.
        failed_at: when it failed last.
        parked: whether its stream is parked, in which a missing table or column may have stopped
            the projection; else the event has stopped it.
    """

    position: int
    stream: str
    stream_version: int
    type: str
    error: str
    trace: str
    attempts: int
    failed_at: datetime
    parked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedFailure:
    """
    A failure that an operator has resolved, by whom and why.

    Args:
        position: of the event.
        stream: of the event.
        type: of the event.
        resolution: see Resolution.
        resolved_at: when.
        resolved_by: a person or a program.
        reason: in their words.
    """

    position: int
    stream: str
    type: str
    resolution: Resolution
    resolved_at: datetime
    resolved_by: str
    reason: str


@dataclass(frozen=True, slots=True)
class FailureNumbers:
    """
    How many events one version of a projection could not apply.

    Args:
        waiting: those that wait for a correction.
        skipped: those that an operator has skipped; of the resolved failures that are kept.
        parked_streams: those whose later events wait, too.
    """

    waiting: int
    skipped: int
    parked_streams: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedStream:
    """
    A stream that waits for an event that could not be applied.

    Args:
        stream: its name.
        next_position: its events from this position on are not applied.
        next_version: none of these has a lower version.
        retry_requested_at: when an operator has requested to apply them; None: not requested.
    """

    stream: str
    next_position: int
    next_version: int
    retry_requested_at: datetime | None


async def record(tx: Transaction, projection: ProjectionKey, poison: PoisonEvent) -> None:
    """Record that an event could not be applied; again, if it failed before."""
    recorded = poison.recorded
    await tx.execute(
        _RECORD,
        {
            **_key(projection),
            "position": recorded.position,
            "stream": recorded.stream,
            "stream_version": recorded.version,
            "type": recorded.type,
            "error": _storable(poison.error)[:MAX_ERROR_CHARACTERS],
            "trace": _storable(poison.trace)[-MAX_TRACE_CHARACTERS:],
        },
    )


def _storable(given: str) -> str:
    """Replace what PostgreSQL cannot store: an error may name a key of the event's data."""
    return given.replace("\0", "?").encode("utf-8", "replace").decode()


async def park(tx: Transaction, projection: ProjectionKey, recorded: Recorded) -> None:
    """Park the stream of an event, or move on in it: the event is the next one to apply."""
    place = {"position": recorded.position, "stream_version": recorded.version}
    await tx.execute(_PARK, {**_key(projection), "stream": recorded.stream, **place})


async def advance(tx: Transaction, projection: ProjectionKey, parked: ParkedStream) -> None:
    """Move on in a parked stream, to its next position and version."""
    place = {"position": parked.next_position, "stream_version": parked.next_version}
    await tx.execute(_ADVANCE, {**_key(projection), "stream": parked.stream, **place})


async def unpark(tx: Transaction, projection: ProjectionKey, stream: str) -> None:
    """Remove a stream whose events have all been applied."""
    await tx.execute(_UNPARK, {**_key(projection), "stream": stream})


async def parked_streams(tx: Transaction, projection: ProjectionKey) -> dict[str, int]:
    """The parked streams, and the position of the next event of each."""
    return {row.stream: row.next_position for row in await tx.execute(_PARKED, _key(projection))}


async def retried_streams(tx: Transaction, projection: ProjectionKey) -> list[ParkedStream]:
    """The parked streams whose retry an operator has requested, the first request first."""
    return [_parked(row) for row in await tx.execute(_RETRIED, _key(projection))]


async def read_parked(tx: Transaction, name: str, version: int) -> list[ParkedStream]:
    """Read the parked streams of a projection, by name; at most `max_parked_streams`."""
    parameters = {"name": name, "version": version}
    return [_parked(row) for row in await tx.execute(_READ_PARKED, parameters)]


def _parked(row: Any) -> ParkedStream:
    return ParkedStream(
        stream=row.stream,
        next_position=row.next_position,
        next_version=row.next_version,
        retry_requested_at=row.retry_requested_at,
    )


async def read_open(tx: Transaction, name: str, version: int) -> list[StoredFailure]:
    """Read the open failures of a projection, by position."""
    rows: Sequence[StoredFailure] = [
        StoredFailure(
            position=row.position,
            stream=row.stream,
            stream_version=row.stream_version,
            type=row.type,
            error=row.error,
            trace=row.trace,
            attempts=row.attempts,
            failed_at=row.failed_at,
            parked=row.parked,
        )
        for row in await tx.execute(_READ_OPEN, {"name": name, "version": version})
    ]
    return [*rows]


async def read_numbers(
    tx: Transaction, name: str | None = None
) -> Mapping[tuple[str, int], FailureNumbers]:
    """Count the failures of all projections, or of one, by name and version."""
    return {
        (row.name, row.version): FailureNumbers(row.waiting, row.skipped, row.parked_streams)
        for row in await tx.execute(_READ_NUMBERS, {"name": name})
    }


async def was_resolved(
    tx: Transaction, projection: ProjectionKey, position: int, seconds: float
) -> bool:
    """Whether an operator has resolved the failure at a position in the last *seconds*."""
    parameters = {**_key(projection), "position": position, "seconds": seconds}
    return (await tx.execute(_WAS_RESOLVED, parameters)).first() is not None


async def read_resolved(
    tx: Transaction, name: str, version: int, limit: int
) -> list[ResolvedFailure]:
    """Read the failures of a projection that were resolved last, the last one first."""
    parameters = {"name": name, "version": version, "limit": limit}
    return [
        ResolvedFailure(
            position=row.position,
            stream=row.stream,
            type=row.type,
            resolution=Resolution(row.resolution),
            resolved_at=row.resolved_at,
            resolved_by=row.resolved_by,
            reason=row.reason,
        )
        for row in await tx.execute(_READ_RESOLVED, parameters)
    ]


def _key(projection: ProjectionKey) -> dict[str, object]:
    return {"name": projection.name, "version": projection.version}


_RECORD = text(
    """
    INSERT INTO saga_engine.projection_failure AS f (projection, projection_version, position,
        stream, stream_version, type, error, trace)
    VALUES (:name, :version, :position, :stream, :stream_version, :type, :error, :trace)
    ON CONFLICT (projection, projection_version, position) DO UPDATE
    SET error = excluded.error, trace = excluded.trace, attempts = f.attempts + 1,
        failed_at = clock_timestamp(), resolution = NULL"""
)
_PARK = text(
    """
    INSERT INTO saga_engine.parked_stream
        (projection, projection_version, stream, next_position, next_version)
    VALUES (:name, :version, :stream, :position, :stream_version)
    ON CONFLICT (projection, projection_version, stream) DO UPDATE
    SET next_position = excluded.next_position, next_version = excluded.next_version,
        retry_requested_at = NULL"""
)
_ADVANCE = text(
    """
    UPDATE saga_engine.parked_stream
    SET next_position = :position, next_version = :stream_version
    WHERE projection = :name AND projection_version = :version AND stream = :stream"""
)
_UNPARK = text(
    """
    DELETE FROM saga_engine.parked_stream
    WHERE projection = :name AND projection_version = :version AND stream = :stream"""
)
_PARKED = text(
    """
    SELECT stream, next_position FROM saga_engine.parked_stream
    WHERE projection = :name AND projection_version = :version"""
)
_RETRIED = text(
    """
    SELECT stream, next_position, next_version, retry_requested_at FROM saga_engine.parked_stream
    WHERE projection = :name AND projection_version = :version AND retry_requested_at IS NOT NULL
    ORDER BY retry_requested_at, stream"""
)
_READ_PARKED = text(
    """
    SELECT stream, next_position, next_version, retry_requested_at FROM saga_engine.parked_stream
    WHERE projection = :name AND projection_version = :version ORDER BY stream"""
)
_READ_OPEN = text(
    """
    SELECT f.position, f.stream, f.stream_version, f.type, f.error, f.trace, f.attempts,
        f.failed_at, p.stream IS NOT NULL AS parked
    FROM saga_engine.projection_failure AS f
    LEFT JOIN saga_engine.parked_stream AS p ON p.projection = f.projection
        AND p.projection_version = f.projection_version AND p.stream = f.stream
    WHERE f.projection = :name AND f.projection_version = :version AND f.resolution IS NULL
    ORDER BY f.position"""
)
_READ_NUMBERS = text(
    """
    SELECT p.name, p.version, coalesce(failed.waiting, 0) AS waiting,
        coalesce(failed.skipped, 0) AS skipped, coalesce(parked.streams, 0) AS parked_streams
    FROM saga_engine.projection AS p
    LEFT JOIN (
        SELECT projection AS name, projection_version AS version,
            count(*) FILTER (WHERE resolution IS NULL) AS waiting,
            count(*) FILTER (WHERE resolution = 'skipped') AS skipped
        FROM saga_engine.projection_failure GROUP BY 1, 2) AS failed USING (name, version)
    LEFT JOIN (
        SELECT projection AS name, projection_version AS version, count(*) AS streams
        FROM saga_engine.parked_stream GROUP BY 1, 2) AS parked USING (name, version)
    WHERE CAST(:name AS text) IS NULL OR name = :name"""
)
_WAS_RESOLVED = text(
    """
    SELECT FROM saga_engine.projection_failure
    WHERE projection = :name AND projection_version = :version AND position = :position
        AND resolved_at > clock_timestamp() - make_interval(secs => CAST(:seconds AS float8))"""
)
_READ_RESOLVED = text(
    """
    SELECT position, stream, type, resolution, resolved_at, resolved_by, reason
    FROM saga_engine.projection_failure
    WHERE projection = :name AND projection_version = :version AND resolution IS NOT NULL
    ORDER BY resolved_at DESC, position DESC LIMIT :limit"""
)
