"""
Messages in the table `consumer_failure`: those that could not be applied or read, and those behind.

A message that stops its partition is still in its source. All others are kept here as they arrived:
one that cannot be read, and those of a parked stream in their order. They leave with an operator's
retry or skip. All functions need the row of the partition locked.
"""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

import orjson

from saga_engine.events.consumers.consumer_table import PartitionKey
from saga_engine.events.consumers.interfaces import IncomingMessage
from saga_engine.postgres.statement import Transaction, text

MAX_ERROR_CHARACTERS = 2_000
MAX_TRACE_CHARACTERS = 8_000


class FailureKind(StrEnum):
    """Why a message is in the table."""

    STOPPED = "stopped"  # it could not be applied, and has stopped its partition
    PARKED = "parked"  # it could not be applied, and its stream waits
    WAITING = "waiting"  # it waits behind one of its stream
    UNREADABLE = "unreadable"  # it cannot be read as an event; nothing waits for it


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFailure:
    """
    A message that is kept.

    Args:
        kind: see FailureKind.
        event: its key, see Received; of an unreadable one, that of its content.
        stream: of the event; empty if it is not known.
        event_id: as the producer gave it; empty if it cannot be read.
        type: of the event; empty if it cannot be read.
        error: what is wrong, in a sentence and without values of the event.
        trace: the lines of code that raised.
        message: as it arrived; None if it stays in its source.
    """

    kind: FailureKind
    event: UUID
    stream: str = ""
    event_id: str = ""
    type: str = ""
    error: str = ""
    trace: str = ""
    message: IncomingMessage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptMessage:
    """
    A message of the table that is applied again.

    Args:
        id: of its row.
        event: its key.
        stream: that waits for it; empty: none does.
        message: as it arrived, without its offset.
    """

    id: int
    event: UUID
    stream: str
    message: IncomingMessage


@dataclass(frozen=True, slots=True)
class Kept:
    """
    What waits for a partition in the table.

    Args:
        streams: those that are parked.
        messages: how many messages are kept.
        retry_requested: whether messages are to be applied now: an operator has requested it, or
            they wait behind none.
    """

    streams: frozenset[str]
    messages: int
    retry_requested: bool


async def keep(tx: Transaction, key: PartitionKey, failure: NewFailure) -> None:
    """Keep a message; one that is kept already has failed once more."""
    await tx.execute(
        _KEEP,
        {
            **key.parameters,
            "kind": failure.kind.value,
            "event": str(failure.event),
            "stream": failure.stream,
            "event_id": failure.event_id,
            "type": failure.type,
            "error": _storable(failure.error)[:MAX_ERROR_CHARACTERS],
            "trace": _storable(failure.trace)[-MAX_TRACE_CHARACTERS:],
            **_columns(failure.message),
        },
    )


def _columns(message: IncomingMessage | None) -> dict[str, object]:
    """Return a message as parameters of a statement."""
    if message is None:
        return dict.fromkeys(("attributes", "problem", "content_encoding", "body", "body_size"))
    return {
        "attributes": orjson.dumps(dict(message.attributes)).decode(),
        "problem": _storable(message.problem)[:MAX_ERROR_CHARACTERS],
        "content_encoding": message.content_encoding,
        "body": message.body,
        "body_size": message.body_size,
    }


def _storable(given: str) -> str:
    """Replace what PostgreSQL cannot store: an error may name a key of the event's data."""
    return given.replace("\0", "?").encode("utf-8", "replace").decode()


async def read_kept(tx: Transaction, key: PartitionKey) -> Kept:
    """Read what waits for a partition."""
    row = (await tx.execute(_KEPT, key.parameters)).one()
    return Kept(frozenset(row.streams or ()), row.messages, row.retry_requested)


async def next_retried(tx: Transaction, key: PartitionKey, after: int) -> KeptMessage | None:
    """
    Read the next message that is to be applied again.

    Those of a stream come in their order, beginning with the first that is kept. One that has
    arrived after an operator's retry or skip, and waits behind none any more, is applied too.

    Args:
        tx: a transaction.
        key: the partition.
        after: only rows with a greater id.
    """
    row = (await tx.execute(_NEXT_RETRIED, {**key.parameters, "after": after})).first()
    if row is None:
        return None
    return KeptMessage(
        id=row.id,
        event=UUID(row.event),
        stream=row.stream,
        message=IncomingMessage(
            attributes=orjson.loads(row.attributes),
            problem=row.problem,
            content_encoding=row.content_encoding,
            body=row.body,
            body_size=row.body_size,
        ),
    )


async def remove(tx: Transaction, failure_id: int) -> None:
    """Remove a message that was applied; what an operator has decided about it stays."""
    await tx.execute(_REMOVE_WAITING, {"id": failure_id})
    await tx.execute(_FORGET_MESSAGE, {"id": failure_id})


async def fail_again(
    tx: Transaction, kept: KeptMessage, kind: FailureKind, error: str, trace: str
) -> None:
    """Note that a message could not be applied again: it and its stream wait for an operator."""
    parameters = {
        "id": kept.id,
        "kind": kind.value,
        "error": _storable(error)[:MAX_ERROR_CHARACTERS],
        "trace": _storable(trace)[-MAX_TRACE_CHARACTERS:],
    }
    await tx.execute(_FAIL_AGAIN, parameters)
    await tx.execute(_CANCEL_RETRY, parameters)


_KEEP = text(
    """
    INSERT INTO saga_engine.consumer_failure AS f (consumer, partition, kind, event, stream,
        event_id, type, error, trace, attributes, problem, content_encoding, body, body_size)
    VALUES (:name, :partition, :kind, CAST(CAST(:event AS text) AS uuid), :stream, :event_id, :type,
        :error, :trace, CAST(CAST(:attributes AS text) AS jsonb), :problem, :content_encoding,
        CAST(:body AS bytea), :body_size)
    ON CONFLICT (consumer, event) DO UPDATE
    SET kind = excluded.kind, error = excluded.error, trace = excluded.trace,
        attempts = f.attempts + 1, failed_at = clock_timestamp(), partition = excluded.partition,
        attributes = excluded.attributes, problem = excluded.problem,
        content_encoding = excluded.content_encoding, body = excluded.body,
        body_size = excluded.body_size, retry_requested_at = NULL,
        resolution = NULL, resolved_at = NULL, resolved_by = NULL, reason = NULL"""
)
_KEPT = text(
    """
    SELECT array_agg(DISTINCT stream) FILTER (WHERE stream <> '' AND kind IN ('parked', 'waiting'))
            AS streams,
        count(*) FILTER (WHERE kind <> 'stopped') AS messages,
        bool_or(retry_requested_at IS NOT NULL OR kind = 'waiting' AND NOT is_parked) IS TRUE
            AS retry_requested
    FROM (
        SELECT stream, kind, retry_requested_at,
            bool_or(kind = 'parked') OVER (PARTITION BY stream) AS is_parked
        FROM saga_engine.consumer_failure
        WHERE consumer = :name AND partition = :partition AND resolution IS NULL) AS open"""
)
_NEXT_RETRIED = text(
    """
    SELECT id, event::text AS event, stream, attributes::text AS attributes, problem,
        content_encoding, body, body_size
    FROM saga_engine.consumer_failure AS f
    WHERE consumer = :name AND partition = :partition AND resolution IS NULL AND id > :after
        AND kind <> 'stopped'
        AND (retry_requested_at IS NOT NULL OR kind = 'waiting' AND NOT EXISTS (
            SELECT FROM saga_engine.consumer_failure AS first
            WHERE first.consumer = f.consumer AND first.partition = f.partition
                AND first.stream = f.stream AND first.resolution IS NULL
                AND first.kind = 'parked'))
    ORDER BY id LIMIT 1"""
)
_REMOVE_WAITING = text(
    """
    DELETE FROM saga_engine.consumer_failure WHERE id = :id AND kind = 'waiting'"""
)
_FORGET_MESSAGE = text(
    """
    UPDATE saga_engine.consumer_failure
    SET attributes = NULL, body = NULL, resolution = 'retried', resolved_at = clock_timestamp(),
        retry_requested_at = NULL
    WHERE id = :id"""
)
_FAIL_AGAIN = text(
    """
    UPDATE saga_engine.consumer_failure
    SET kind = :kind, error = :error, trace = :trace, attempts = attempts + 1,
        failed_at = clock_timestamp(), retry_requested_at = NULL, resolved_by = NULL, reason = NULL
    WHERE id = :id"""
)
_CANCEL_RETRY = text(
    """
    UPDATE saga_engine.consumer_failure AS f SET retry_requested_at = NULL
    FROM saga_engine.consumer_failure AS failed
    WHERE failed.id = :id AND failed.stream <> '' AND f.consumer = failed.consumer
        AND f.partition = failed.partition AND f.stream = failed.stream AND f.resolution IS NULL
        AND f.kind <> 'unreadable'"""
)
