"""
Events that a feed could not publish: the table `feed_failure`.

A failure stops its feed. It stays open until an operator retries the event or discards it; by whom
and why is kept with it. Of the resolved ones a feed keeps the newest.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.feeds import feed_table
from saga_engine.events.feeds.feed_table import FeedKey, FeedState
from saga_engine.events.readers.operator_audit import MAX_RESOLVED, Operator
from saga_engine.postgres.statement import Transaction, text


class Resolution(StrEnum):
    """What an operator did about a failure."""

    RETRIED = "retried"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFailure:
    """
    The failure that has stopped a feed.

    Args:
        position: of the event.
        stream: of the event.
        stream_version: of the event.
        type: of the event.
        event_id: of the event.
        error: why it was not published, and what to do, in a sentence.
        attempts: how often it was tried.
        failed_at: when it failed last.
    """

    position: int
    stream: str
    stream_version: int
    type: str
    event_id: UUID
    error: str
    attempts: int
    failed_at: datetime


async def stop(tx: Transaction, key: FeedKey, event: Recorded, error: str) -> None:
    """Stop a feed before an event, and record why. The caller has saved the feed's position."""
    parameters = {
        **key.parameters,
        "position": event.position,
        "stream": event.stream,
        "stream_version": event.version,
        "type": event.type,
        "event_id": str(event.id),
        "error": error,
    }
    await tx.execute(_RECORD, parameters)
    await feed_table.set_state(tx, key, FeedState.STOPPED, event.position - 1)


async def read_open(tx: Transaction, key: FeedKey) -> StoredFailure | None:
    """Read the failure that has stopped a feed."""
    row = (await tx.execute(_READ_OPEN, key.parameters)).first()
    if row is None:
        return None
    return StoredFailure(
        position=row.position,
        stream=row.stream,
        stream_version=row.stream_version,
        type=row.type,
        event_id=UUID(row.event_id),
        error=row.error,
        attempts=row.attempts,
        failed_at=row.failed_at,
    )


async def resolve(
    tx: Transaction, key: FeedKey, resolution: Resolution, operator: Operator
) -> None:
    """Resolve the failure that has stopped a feed. The caller has locked the feed."""
    parameters = {
        **key.parameters,
        "resolution": resolution.value,
        "actor": operator.name,
        "reason": operator.reason,
    }
    await tx.execute(_RESOLVE, parameters)
    await tx.execute(_PURGE, {**key.parameters, "kept": MAX_RESOLVED})


_RECORD = text(
    """
    INSERT INTO saga_engine.feed_failure AS f
        (feed, sink, position, stream, stream_version, type, event_id, error)
    VALUES (:name, :sink, :position, :stream, :stream_version, :type, CAST(:event_id AS uuid),
        :error)
    ON CONFLICT (feed, sink, position) DO UPDATE
    SET error = excluded.error, attempts = f.attempts + 1, failed_at = clock_timestamp(),
        resolution = NULL, resolved_at = NULL, resolved_by = NULL, reason = NULL"""
)
_READ_OPEN = text(
    """
    SELECT position, stream, stream_version, type, event_id::text AS event_id, error, attempts,
        failed_at
    FROM saga_engine.feed_failure
    WHERE feed = :name AND sink = :sink AND resolution IS NULL"""
)
_RESOLVE = text(
    """
    UPDATE saga_engine.feed_failure
    SET resolution = :resolution, resolved_at = clock_timestamp(), resolved_by = :actor,
        reason = :reason
    WHERE feed = :name AND sink = :sink AND resolution IS NULL"""
)
_PURGE = text(
    """
    DELETE FROM saga_engine.feed_failure
    WHERE (feed, sink, position) IN (
        SELECT feed, sink, position FROM saga_engine.feed_failure
        WHERE feed = :name AND sink = :sink AND resolution IS NOT NULL
        ORDER BY resolved_at DESC OFFSET :kept)"""
)
