"""
Pending requests: what waits in PostgreSQL, instead of in a queue, until a worker can process it.

Starts that a client recorded in its own transaction, requests of operators, and messages for a saga
or a definition that the worker that received them does not have. Such messages are not requeued in
a loop. A worker takes the requests that it has the definition for with `request_queue`, and
processes them in the same transaction.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import timedelta
from enum import StrEnum
from typing import Any

from saga_engine.postgres.statement import Columns, Transaction, text
from saga_engine.store.json_column import dumps


class RequestKind(StrEnum):
    """What a request asks for: the trigger that it becomes, see `trigger_data`."""

    START = "start"
    REPLY = "reply"
    MALFORMED_REPLY = "malformed_reply"
    UNROUTABLE = "unroutable"
    WAKE_UP = "wake_up"
    CANCEL = "cancel"
    RESOLVE = "resolve"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRequest:
    """
    A request to record.

    Args:
        kind: what it asks for.
        run_id: the run that the request is for, or that the start begins.
        body: the data of the trigger.
        saga: of a start; other requests belong to a run, and the run has its definition.
        version: of a start; None: the newest version that a worker has.
        definition_id: the definition of the run; None: it is looked up.
        audit_id: the operator action that gets its outcome with the decision.
        reply_to: the queue in which the client waits for an answer.
        correlation_id: the correlation id of that answer.
        sender: the RabbitMQ user of the message; None: the request did not come by a message.
        key: the business key of a start.
        role: the PostgreSQL role that recorded it; None: the engine itself.
        delay: no worker takes the request before that time has passed.
        fingerprint: the definition that an accepted start is pinned to; None: not accepted yet.
        awaits_start: no worker takes the request before the start of its run is taken.
    """

    kind: RequestKind
    run_id: str
    body: dict[str, Any]
    saga: str | None = None
    version: int | None = None
    definition_id: int | None = None
    audit_id: str | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    sender: str | None = None
    key: str | None = None
    role: str | None = None
    delay: timedelta = timedelta()
    fingerprint: str | None = None
    awaits_start: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingRequest:
    """
    A request as it was recorded; the fields are those of `NewRequest`.

    Other roles may have written it, so `body` is unchecked text. `body_size` is its length in
    bytes. A body longer than `ReadLimits` allows is cut, and `body_complete` is False. `kind` is a
    RequestKind, unless a newer version of the engine has recorded the request.
    """

    id: int
    kind: str
    run_id: str
    body: str
    body_size: int
    body_complete: bool
    saga: str | None
    version: int | None
    definition_id: int | None
    audit_id: str | None
    reply_to: str | None
    correlation_id: str | None
    sender: str | None
    key: str | None
    role: str | None
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """
    How much of a body is read, in bytes.

    Args:
        engine_bytes: the longest body that the engine itself may have recorded.
        role_bytes: the longest body of another role.
        excerpt_bytes: how much is read of a longer body, for its dead letter.
    """

    engine_bytes: int = 1_572_864
    role_bytes: int = 524_288
    excerpt_bytes: int = 65_536


DEFAULT_READ_LIMITS = ReadLimits()


@dataclass(frozen=True, slots=True)
class PendingStart:
    """
    A pending start, and how many requests of the same run wait for it.

    The version is None when the start named none and no worker has accepted it: the worker that
    starts the run chooses the version.
    """

    saga: str
    version: int | None
    key: str | None
    blocked_requests: int = 0


async def record(tx: Transaction, requests: Sequence[NewRequest]) -> None:
    """Record *requests*, in order. A start of a run that has a pending start is left out."""
    if not requests:
        return
    await tx.execute(_RECORD, request_columns(requests))


def request_columns(requests: Sequence[NewRequest]) -> Columns:
    """Write requests as rows, in order; `delay` is the time until `not_before`."""
    return {
        "run_id": [request.run_id for request in requests],
        "definition_id": [request.definition_id for request in requests],
        "version": [request.version for request in requests],
        "saga": [request.saga for request in requests],
        "kind": [request.kind for request in requests],
        "audit_id": [request.audit_id for request in requests],
        "reply_to": [request.reply_to for request in requests],
        "correlation_id": [request.correlation_id for request in requests],
        "sender": [request.sender for request in requests],
        "key": [request.key for request in requests],
        "role": [request.role for request in requests],
        "delay": [request.delay for request in requests],
        "fingerprint": [request.fingerprint for request in requests],
        "awaits_start": [request.awaits_start for request in requests],
        "body": [dumps(request.body) for request in requests],
    }


async def find_starts(
    tx: Transaction, run_ids: Collection[str], count_limit: int = 0
) -> dict[str, PendingStart]:
    """
    Find the pending starts of these runs, by run id.

    Args:
        count_limit: where the count of blocked requests ends. If it is above 0, the starts are
            locked: no other transaction takes one before this one has recorded what waits for it.
    """
    if not run_ids:
        return {}
    statement = _FIND_AND_LOCK_STARTS if count_limit else _FIND_STARTS
    rows = await tx.execute(statement, {"run_ids": sorted(run_ids), "count_limit": count_limit})
    return {
        run_id: PendingStart(saga, version, key, blocked_requests)
        for run_id, saga, version, key, blocked_requests in rows
    }


async def existing_runs(tx: Transaction, run_ids: Collection[str]) -> set[str]:
    """Find which of these runs exist or have a pending start."""
    return set((await tx.execute(_EXISTING_RUNS, {"run_ids": sorted(run_ids)})).scalars())


async def read_starts(
    tx: Transaction, run_ids: Collection[str], body_limits: ReadLimits = DEFAULT_READ_LIMITS
) -> dict[str, PendingRequest]:
    """Read the pending starts of these runs, by run id, without taking them."""
    if not run_ids:
        return {}
    rows = await tx.execute(_READ_STARTS, {"run_ids": sorted(run_ids), **asdict(body_limits)})
    return {request.run_id: request for request in to_pending_requests(rows)}


def to_pending_requests(rows: Iterable[Any]) -> list[PendingRequest]:
    """Make requests of rows that have `REQUEST_COLUMNS`; the oldest first."""
    requests = [PendingRequest(**dict(zip(_FIELD_NAMES, row, strict=True))) for row in rows]
    return sorted(requests, key=lambda request: request.id)


_FIELD_NAMES = tuple(field.name for field in fields(PendingRequest))

_RECORD = text(
    """
    INSERT INTO saga_engine.pending_request (run_id, definition_id, version, saga, kind, audit_id,
        body, reply_to, correlation_id, sender, key, role, fingerprint, awaits_start, not_before)
    SELECT u.run_id,
        coalesce(u.definition_id, CASE WHEN u.kind <> 'start' THEN
            (SELECT r.definition_id FROM saga_engine.run AS r WHERE r.run_id = u.run_id) END),
        u.version, u.saga, u.kind, u.audit_id, u.body,
        u.reply_to, u.correlation_id, u.sender, u.key, u.role, u.fingerprint, u.awaits_start,
        CASE WHEN u.delay > interval '0' THEN clock_timestamp() + u.delay END
    FROM unnest(CAST(:run_id AS uuid[]), CAST(:definition_id AS integer[]),
        CAST(:version AS integer[]), CAST(:saga AS text[]), CAST(:kind AS text[]),
        CAST(:audit_id AS uuid[]), CAST(:body AS text[]), CAST(:reply_to AS text[]),
        CAST(:correlation_id AS text[]), CAST(:sender AS text[]),
        CAST(:key AS text[]), CAST(:role AS text[]), CAST(:delay AS interval[]),
        CAST(:fingerprint AS text[]), CAST(:awaits_start AS boolean[])) WITH ORDINALITY
        AS u(run_id, definition_id, version, saga, kind, audit_id, body, reply_to, correlation_id,
            sender, key, role, delay, fingerprint, awaits_start, ordinal)
    ORDER BY u.ordinal
    ON CONFLICT DO NOTHING"""
)

# The server checks the length of a body before it sends any of it: other roles may have written it.
REQUEST_COLUMNS = """
    id, kind, run_id::text,
        CASE WHEN octet_length(body) <= {longest}
            THEN body ELSE substr(body, 1, CAST(:excerpt_bytes AS integer)) END,
        octet_length(body), octet_length(body) <= {longest},
        saga, version, definition_id, audit_id::text, reply_to, correlation_id, left(sender, 1000),
        key, role, fingerprint""".format(
    longest="CASE WHEN role IS NULL THEN CAST(:engine_bytes AS integer)"
    " ELSE CAST(:role_bytes AS integer) END"
)
"""The columns of `PendingRequest`, in the order of its fields."""

_FIND_STARTS_SQL = """
    SELECT p.run_id::text, p.saga, p.version, p.key,
        (SELECT count(*) FROM (
            SELECT FROM saga_engine.pending_request AS b
            WHERE b.run_id = p.run_id AND b.kind <> 'start' AND b.awaits_start
            LIMIT :count_limit) AS limited)
    FROM saga_engine.pending_request AS p
    WHERE p.run_id = ANY (CAST(:run_ids AS uuid[])) AND p.kind = 'start'"""

_FIND_STARTS = text(_FIND_STARTS_SQL)

_FIND_AND_LOCK_STARTS = text(f"{_FIND_STARTS_SQL} ORDER BY p.run_id FOR KEY SHARE OF p")

_EXISTING_RUNS = text(
    """
    SELECT u.id::text FROM unnest(CAST(:run_ids AS uuid[])) AS u(id)
    WHERE EXISTS (SELECT FROM saga_engine.run AS r WHERE r.run_id = u.id)
        OR EXISTS (
            SELECT FROM saga_engine.pending_request AS p
            WHERE p.run_id = u.id AND p.kind = 'start')"""
)

_READ_STARTS = text(
    f"""
    SELECT {REQUEST_COLUMNS} FROM saga_engine.pending_request
    WHERE run_id = ANY (CAST(:run_ids AS uuid[])) AND kind = 'start'"""  # noqa: S608 - a constant
)
