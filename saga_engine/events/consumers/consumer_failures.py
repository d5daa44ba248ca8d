"""
What operators see of the table `consumer_failure`, and what they decide about it.

By whom and why stays with the newest failures of a consumer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from saga_engine.events.consumers.kept_messages import FailureKind
from saga_engine.events.readers.operator_audit import MAX_RESOLVED, Operator
from saga_engine.postgres.statement import Transaction, text


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFailure:
    """
    A failure as it is stored; see NewFailure.

    Args:
        id: names it in commands of operators.
        partition: that it came from.
        kind: see FailureKind.
        stream: see NewFailure.
        event_id: see NewFailure.
        type: see NewFailure.
        error: see NewFailure.
        trace: see NewFailure.
        attempts: how often it was tried.
        failed_at: when it failed last, or arrived.
        retry_requested_at: when an operator has requested a retry; None: not requested.
    """

    id: int
    partition: int
    kind: FailureKind
    stream: str
    event_id: str
    type: str
    error: str
    trace: str
    attempts: int
    failed_at: datetime
    retry_requested_at: datetime | None


@dataclass(frozen=True, slots=True)
class FailureNumbers:
    """
    What waits for a partition of a consumer.

    Args:
        failures: messages that could not be applied or read.
        kept: messages in the table: those, and the ones behind them.
        parked_streams: streams that wait.
    """

    failures: int
    kept: int
    parked_streams: int


NOTHING_WAITS = FailureNumbers(0, 0, 0)


@dataclass(frozen=True, slots=True)
class KeptOfOther:
    """Messages of a source that a consumer no longer has: their number, and the source."""

    messages: int
    source: str


async def read_open(tx: Transaction, name: str, limit: int) -> Sequence[StoredFailure]:
    """Read the failures of a consumer that wait, and not what waits behind them."""
    parameters = {"name": name, "limit": limit}
    return [
        StoredFailure(
            id=row.id,
            partition=row.partition,
            kind=FailureKind(row.kind),
            stream=row.stream,
            event_id=row.event_id,
            type=row.type,
            error=row.error,
            trace=row.trace,
            attempts=row.attempts,
            failed_at=row.failed_at,
            retry_requested_at=row.retry_requested_at,
        )
        for row in await tx.execute(_READ_OPEN, parameters)
    ]


async def request_retry(tx: Transaction, name: str, operator: Operator) -> tuple[int, int]:
    """Request a retry of everything that waits: how many failures, and messages behind them."""
    parameters = {"name": name, "actor": operator.name, "reason": operator.reason}
    stopped: int = (await tx.execute(_RETRY_STOPPED, parameters)).rowcount
    kinds = [FailureKind(row.kind) for row in await tx.execute(_REQUEST_RETRY, parameters)]
    behind = kinds.count(FailureKind.WAITING)
    return stopped + len(kinds) - behind, behind


async def skip(
    tx: Transaction, name: str, failure_id: int, operator: Operator
) -> tuple[FailureKind, int, UUID] | None:
    """
    Resolve a failure as skipped, and forget its message.

    Returns:
        Its kind, its partition and its key; None if there is no such failure that waits.
    """
    parameters = {
        "name": name,
        "id": failure_id,
        "actor": operator.name,
        "reason": operator.reason,
    }
    row = (await tx.execute(_SKIP, parameters)).first()
    return None if row is None else (FailureKind(row.kind), row.partition, UUID(row.event))


async def request_rest(tx: Transaction, failure_id: int) -> None:
    """Request that the messages are applied which wait behind one of their stream."""
    await tx.execute(_REQUEST_REST, {"id": failure_id})


async def read_numbers(
    tx: Transaction, name: str | None = None
) -> Mapping[tuple[str, int], FailureNumbers]:
    """Count what waits for all consumers, or for one, by name and partition."""
    return {
        (row.name, row.partition): FailureNumbers(
            failures=row.failures, kept=row.kept, parked_streams=row.parked_streams
        )
        for row in await tx.execute(_READ_NUMBERS, {"name": name})
    }


async def kept_of_others(tx: Transaction, name: str, source: str) -> KeptOfOther | None:
    """Count the messages that are kept of another source than *source*; None if there are none."""
    row = (await tx.execute(_KEPT_OF_OTHERS, {"name": name, "source": source})).first()
    return None if row is None else KeptOfOther(row.messages, row.source)


async def purge(tx: Transaction, name: str) -> None:
    """Remove the oldest resolved failures of a consumer beyond MAX_RESOLVED."""
    await tx.execute(_PURGE, {"name": name, "kept": MAX_RESOLVED})


_READ_OPEN = text(
    """
    SELECT id, partition, kind, stream, event_id, type, error, trace, attempts, failed_at,
        retry_requested_at
    FROM saga_engine.consumer_failure
    WHERE consumer = :name AND resolution IS NULL AND kind <> 'waiting'
    ORDER BY id LIMIT :limit"""
)
_KEPT_OF_OTHERS = text(
    """
    SELECT c.source, count(*) AS messages
    FROM saga_engine.consumer AS c
    JOIN saga_engine.consumer_failure AS f ON f.consumer = c.name AND f.partition = c.partition
    WHERE c.name = :name AND c.source <> :source AND f.resolution IS NULL AND f.kind <> 'stopped'
    GROUP BY c.source ORDER BY c.source LIMIT 1"""
)
_PURGE = text(
    """
    DELETE FROM saga_engine.consumer_failure
    WHERE id IN (
        SELECT id FROM saga_engine.consumer_failure
        WHERE consumer = :name AND resolution IS NOT NULL
        ORDER BY resolved_at DESC, id DESC OFFSET :kept)"""
)
_RETRY_STOPPED = text(
    """
    UPDATE saga_engine.consumer_failure
    SET resolution = 'retried', resolved_at = clock_timestamp(), resolved_by = :actor,
        reason = :reason
    WHERE consumer = :name AND resolution IS NULL AND kind = 'stopped'"""
)
_REQUEST_RETRY = text(
    """
    UPDATE saga_engine.consumer_failure
    SET retry_requested_at = clock_timestamp(), resolved_by = :actor, reason = :reason
    WHERE consumer = :name AND resolution IS NULL AND kind <> 'stopped'
    RETURNING kind"""
)
_SKIP = text(
    """
    UPDATE saga_engine.consumer_failure
    SET resolution = 'skipped', resolved_at = clock_timestamp(), resolved_by = :actor,
        reason = :reason, attributes = NULL, body = NULL
    WHERE consumer = :name AND id = :id AND resolution IS NULL AND kind <> 'waiting'
    RETURNING kind, partition, event::text AS event"""
)
_REQUEST_REST = text(
    """
    UPDATE saga_engine.consumer_failure AS f SET retry_requested_at = clock_timestamp()
    FROM saga_engine.consumer_failure AS skipped
    WHERE skipped.id = :id AND skipped.stream <> '' AND f.consumer = skipped.consumer
        AND f.partition = skipped.partition AND f.stream = skipped.stream
        AND f.resolution IS NULL AND f.kind = 'waiting'"""
)
_READ_NUMBERS = text(
    """
    SELECT c.name, c.partition, count(f.id) FILTER (WHERE f.kind <> 'waiting') AS failures,
        count(f.id) FILTER (WHERE f.kind <> 'stopped') AS kept,
        count(DISTINCT f.stream) FILTER (WHERE f.stream <> '' AND f.kind IN ('parked', 'waiting'))
            AS parked_streams
    FROM saga_engine.consumer AS c
    LEFT JOIN saga_engine.consumer_failure AS f ON f.consumer = c.name
        AND f.partition = c.partition AND f.resolution IS NULL
    WHERE CAST(:name AS text) IS NULL OR c.name = :name
    GROUP BY c.name, c.partition"""
)
