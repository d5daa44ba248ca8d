"""
What waits in PostgreSQL for a worker, instead of in a queue.

Starts that a caller recorded in its own transaction, requests of operators, and whatever arrived at
a worker without the definition it is for: nothing is requeued in a loop, nothing is guessed. A
worker takes what it has the definition for and decides it in the same transaction.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from saga_engine.postgres.statement import Transaction, text
from saga_engine.store.json_column import dumps

UNLIMITED_BYTES = 2**62
"""More bytes than any bodies have."""


@dataclass(frozen=True, slots=True)
class NewRequest:
    """
    One thing to record.

    `kind` and `body` are those of `trigger_data`. A start names its saga, and its version unless
    the newest will do, and its business key, if it has one; everything else belongs to a run, whose
    definition is looked up when it is not given. `fingerprint` is that of the definition an
    accepted start is pinned to; a start without one has not been accepted yet. `audit_id` is the
    record that is to be settled with the decision; `reply_to` and `correlation_id` say where an
    answer is waited for. `sender` is the RabbitMQ user of the message it came in, None for what
    came by no message; `role` the role of PostgreSQL that recorded it, None for what the engine
    itself keeps. It is not taken before `delay` is over. `held`: it is not taken before the start
    of its run is.
    """

    kind: str
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


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """
    One thing that was recorded, as `Item`.

    Others than the engine may have written it: `body` is its text as it stands there, `size` the
    length of that in bytes. A body that is longer than allowed is cut, and `whole` is False.
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
    How much of a body is fetched, in bytes.

    Args:
        ours: the longest that the engine itself may have recorded.
        others: the longest of another role.
        kept: how much is read of a longer one, for the record.
    """

    engine_bytes: int = 1_572_864
    role_bytes: int = 524_288
    excerpt_bytes: int = 65_536


@dataclass(frozen=True, slots=True)
class PendingStart:
    """
    A start that waits: of which saga, with which key, and how many requests are held behind it.

    The version is None when the start named none and no worker has accepted it: the worker that
    begins the run chooses the version.
    """

    saga: str
    version: int | None
    key: str | None
    blocked_requests: int = 0


async def record(tx: Transaction, requests: Sequence[NewRequest]) -> None:
    """Record *items*, in order. The start of a run that waits already is not recorded again."""
    if not requests:
        return
    await tx.execute(
        _RECORD,
        {
            "run_ids": [request.run_id for request in requests],
            "definition_ids": [request.definition_id for request in requests],
            "versions": [request.version for request in requests],
            "sagas": [request.saga for request in requests],
            "kinds": [request.kind for request in requests],
            "audit_ids": [request.audit_id for request in requests],
            "reply_to": [request.reply_to for request in requests],
            "correlation_ids": [request.correlation_id for request in requests],
            "senders": [request.sender for request in requests],
            "keys": [request.key for request in requests],
            "roles": [request.role for request in requests],
            "delays": [request.delay for request in requests],
            "fingerprints": [request.fingerprint for request in requests],
            "awaits_start": [request.awaits_start for request in requests],
            "bodies": [dumps(request.body) for request in requests],
        },
    )


async def take(
    tx: Transaction,
    *,
    definition_ids: Sequence[int],
    limit: int,
    body_limits: ReadLimits = ReadLimits(),
    max_bytes: int = UNLIMITED_BYTES,
) -> list[PendingRequest]:
    """
    Take out up to *limit* items that are no starts and that this worker can decide, oldest first.

    Args:
        definition_ids: the definitions it has.
        most: bytes of bodies after which no further item is taken.
    """
    arguments = {
        "definition_ids": list(definition_ids),
        "limit": limit,
        "max_bytes": max_bytes,
        **asdict(body_limits),
    }
    return to_pending_requests(await tx.execute(_TAKE, arguments))


async def take_starts(
    tx: Transaction,
    slots: Mapping[str, int],
    *,
    definition_ids: Sequence[int],
    limit: int,
    body_limits: ReadLimits = ReadLimits(),
    max_bytes: int = UNLIMITED_BYTES,
) -> list[PendingRequest]:
    """
    Take out up to *limit* starts that this worker can decide, oldest first.

    What is held behind them can be taken from now on, in this transaction too.

    Args:
        turns: how many of each saga at most, by its name.
        definition_ids: the definitions it has. A start that is pinned to another one stays.
        most: bytes of bodies after which no further start is taken.
    """
    if not slots:
        return []
    arguments = {
        "sagas": list(slots),
        "slots": list(slots.values()),
        "definition_ids": list(definition_ids),
        "limit": limit,
        "max_bytes": max_bytes,
        **asdict(body_limits),
    }
    taken = to_pending_requests(await tx.execute(_TAKE_STARTS, arguments))
    await unblock_requests(tx, [item.run_id for item in taken])
    return taken


async def unblock_requests(tx: Transaction, run_ids: Sequence[str]) -> None:
    """Have what is held behind the starts of these runs taken: the starts have had their turn."""
    if run_ids:
        await tx.execute(_UNBLOCK_REQUESTS, {"run_ids": list(run_ids)})


async def defer(tx: Transaction, ids: Sequence[int], delay: timedelta) -> None:
    """Leave items alone for a while, without reading them."""
    await tx.execute(_DEFER, {"ids": list(ids), "delay": delay})


async def sagas_with_starts(
    tx: Transaction, sagas: Sequence[str], definition_ids: Sequence[int]
) -> set[str]:
    """Which of *sagas* have starts that wait, and that this worker could take."""
    arguments = {"sagas": list(sagas), "definition_ids": list(definition_ids)}
    return set((await tx.execute(_SAGAS_WITH_STARTS, arguments)).scalars())


async def has_work(tx: Transaction, sagas: Sequence[str], definition_ids: Sequence[int]) -> bool:
    """
    Whether there is something that this worker could take: a start of *sagas*, or anything else.

    True on a server that takes no writes, too: it may be a standby that lags behind, and the
    attempt to take something shows that.
    """
    arguments = {"sagas": list(sagas), "definition_ids": list(definition_ids)}
    return bool((await tx.execute(_HAS_WORK, arguments)).scalar_one())


async def find_starts(
    tx: Transaction, run_ids: Collection[str], count_limit: int = 0
) -> dict[str, PendingStart]:
    """
    Find the starts that wait of these runs, by run id; the others are left out.

    Args:
        held: how many held requests are counted at most. If there may be any, the starts are
            locked, so that none is taken out before this transaction has recorded what it holds.
    """
    if not run_ids:
        return {}
    statement = _FIND_AND_LOCK_STARTS if count_limit else _FIND_STARTS
    rows = await tx.execute(statement, {"run_ids": sorted(run_ids), "count_limit": count_limit})
    return {run_id: PendingStart(*others) for run_id, *others in rows}


async def existing_runs(tx: Transaction, run_ids: Collection[str]) -> set[str]:
    """Find which of these runs are there, or wait to begin."""
    return set((await tx.execute(_EXISTING_RUNS, {"run_ids": sorted(run_ids)})).scalars())


async def read_starts(
    tx: Transaction, run_ids: Collection[str], body_limits: ReadLimits = ReadLimits()
) -> dict[str, PendingRequest]:
    """Read the starts that wait of these runs, by run id, and leave them where they are."""
    if not run_ids:
        return {}
    rows = await tx.execute(_READ_STARTS, {"run_ids": sorted(run_ids), **asdict(body_limits)})
    return {item.run_id: item for item in to_pending_requests(rows)}


def to_pending_requests(rows: Iterable[Any]) -> list[PendingRequest]:
    """Read the rows that a statement found, the oldest first."""
    return sorted((PendingRequest(*row) for row in rows), key=lambda item: item.id)


_RECORD = text(
    """
    INSERT INTO saga_engine.pending_request (run_id, definition_id, version, saga, kind, audit_id,
        body,
        reply_to, correlation_id, sender, key, role, fingerprint, awaits_start, not_before)
    SELECT u.run_id,
        coalesce(u.definition_id, CASE WHEN u.kind <> 'start' THEN
            (SELECT r.definition_id FROM saga_engine.run AS r WHERE r.run_id = u.run_id) END),
        u.version, u.saga, u.kind, u.audit_id, u.body,
        u.reply_to, u.correlation_id, u.sender, u.key, u.role, u.fingerprint, u.awaits_start,
        CASE WHEN u.delay > interval '0' THEN clock_timestamp() + u.delay END
    FROM unnest(CAST(:run_ids AS uuid[]), CAST(:definition_ids AS integer[]),
        CAST(:versions AS integer[]), CAST(:sagas AS text[]), CAST(:kinds AS text[]),
        CAST(:audit_ids AS uuid[]), CAST(:bodies AS text[]), CAST(:reply_to AS text[]),
        CAST(:correlation_ids AS text[]), CAST(:senders AS text[]),
        CAST(:keys AS text[]), CAST(:roles AS text[]), CAST(:delays AS interval[]),
        CAST(:fingerprints AS text[]), CAST(:awaits_start AS boolean[])) WITH ORDINALITY
        AS u(run_id, definition_id, version, saga, kind, audit_id, body, reply_to, correlation_id,
            sender, key, role, delay, fingerprint, awaits_start, ordinal)
    ORDER BY u.ordinal
    ON CONFLICT DO NOTHING"""
)

# A body is looked at by its length before any of it leaves the server: others may have written it.
_COLUMNS = """
    id, kind, run_id::text,
        CASE WHEN octet_length(body) <= {longest}
            THEN body ELSE substr(body, 1, CAST(:excerpt_bytes AS integer)) END,
        octet_length(body), octet_length(body) <= {longest},
        saga, version, definition_id, audit_id::text, reply_to, correlation_id, left(sender, 1000),
        key, role, fingerprint""".format(
    longest="CASE WHEN role IS NULL THEN CAST(:engine_bytes AS integer)"
    " ELSE CAST(:role_bytes AS integer) END"
)

RETURNING_REQUEST = f"""
    RETURNING {_COLUMNS}"""

_READY_AT = "coalesce(i.not_before, i.received_at)"

_READY_FOR_DEFINITION = f"""
    i.kind <> 'start' AND NOT i.awaits_start AND coalesce(i.definition_id, 0) = d.id
        AND {_READY_AT} <= (SELECT clock_timestamp())"""

_LOCKED_ROWS_MARGIN = 1000
"""
Rows a statement looks at beyond those it takes, because other workers hold some of them: five
workers may hold a batch of the default size each. Where more are held, this worker takes fewer, and
the rest at its next look. A row costs microseconds, so it is not a setting.
"""

# The first of the candidates that are free are locked, and no others. The rows come in the order of
# the candidates, so that LIMIT ends the locks. What names no definition goes to any worker: it
# looks the run up, and passes the request on to a worker that has the definition, or holds it back
# while a start of that run waits.
_TAKE = text(
    f"""
    DELETE FROM saga_engine.pending_request WHERE id = ANY (ARRAY(
        SELECT b.id FROM (SELECT f.id, sum(f.size) OVER (ORDER BY f.id) - f.size AS before FROM (
            SELECT t.id, t.size FROM (
                SELECT c.id FROM unnest(CAST(:definition_ids AS integer[]) || 0) AS d(id),
                LATERAL (
                    SELECT i.id, {_READY_AT} AS ready_at FROM saga_engine.pending_request AS i
                    WHERE {_READY_FOR_DEFINITION}
                    ORDER BY {_READY_AT}, i.id LIMIT :limit + {_LOCKED_ROWS_MARGIN}) AS c
                ORDER BY c.ready_at, c.id LIMIT :limit + {_LOCKED_ROWS_MARGIN}) AS c,
            LATERAL (
                SELECT i.id, octet_length(i.body) AS size FROM saga_engine.pending_request AS i
                WHERE i.id = c.id AND NOT i.awaits_start
                    AND {_READY_AT} <= (SELECT clock_timestamp())
                FOR UPDATE OF i SKIP LOCKED) AS t
            LIMIT :limit) AS f) AS b
        WHERE b.before < :max_bytes))"""  # noqa: S608 - constants
    + RETURNING_REQUEST
)

# The starts that a worker can take: those pinned to a definition that it has, those that are not
# accepted yet and ask for a version that it has, and those that ask for the newest.
_DEFINITION_PINS = """
    SELECT 0 AS version, '' AS fingerprint
    UNION ALL
    SELECT d.version, f.fingerprint
    FROM saga_engine.definition AS d, unnest(ARRAY['', d.fingerprint]) AS f(fingerprint)
    WHERE d.id = ANY (CAST(:definition_ids AS integer[])) AND d.name = w.saga"""

_READY_FOR_PIN = """
    i.kind = 'start' AND i.saga = w.saga AND coalesce(i.version, 0) = p.version
        AND coalesce(i.fingerprint, '') = p.fingerprint
        AND coalesce(i.not_before, i.received_at) <= (SELECT clock_timestamp())"""

# Locked are as many of each saga as it has places.
_TAKE_STARTS = text(
    f"""
    DELETE FROM saga_engine.pending_request WHERE id = ANY (ARRAY(
        SELECT b.id FROM (SELECT f.id, sum(f.size) OVER (ORDER BY f.id) - f.size AS before FROM (
            SELECT t.id, t.size
            FROM unnest(CAST(:sagas AS text[]), CAST(:slots AS integer[])) AS w(saga, slots),
            LATERAL (
                SELECT k.id, k.size FROM (
                    SELECT c.id FROM ({_DEFINITION_PINS}) AS p,
                    LATERAL (
                        SELECT i.id, {_READY_AT} AS ready_at FROM saga_engine.pending_request AS i
                            WHERE
                        {_READY_FOR_PIN}
                        ORDER BY {_READY_AT}, i.id LIMIT w.slots + {_LOCKED_ROWS_MARGIN}) AS c
                    ORDER BY c.ready_at, c.id LIMIT w.slots + {_LOCKED_ROWS_MARGIN}) AS c,
                LATERAL (
                    SELECT i.id, octet_length(i.body) AS size FROM saga_engine.pending_request AS i
                    WHERE i.id = c.id AND {_READY_AT} <= (SELECT clock_timestamp())
                    FOR UPDATE OF i SKIP LOCKED) AS k
                LIMIT w.slots) AS t
            ORDER BY t.id LIMIT :limit) AS f) AS b
        WHERE b.before < :max_bytes))"""  # noqa: S608 - constants
    + RETURNING_REQUEST
)

_DEFER = text(
    """
    UPDATE saga_engine.pending_request SET not_before = clock_timestamp() + CAST(:delay AS interval)
    WHERE id = ANY (CAST(:ids AS bigint[]))"""
)

_UNBLOCK_REQUESTS = text(
    """
    UPDATE saga_engine.pending_request SET awaits_start = false
    WHERE run_id = ANY (CAST(:run_ids AS uuid[])) AND kind <> 'start' AND awaits_start"""
)

_SAGAS_WITH_STARTS_SQL = f"""
    SELECT w.saga FROM unnest(CAST(:sagas AS text[])) AS w(saga)
    WHERE EXISTS (
        SELECT FROM ({_DEFINITION_PINS}) AS p,
        LATERAL (SELECT FROM saga_engine.pending_request AS i WHERE {_READY_FOR_PIN}
            LIMIT 1) AS c)"""  # noqa: S608

_SAGAS_WITH_STARTS = text(_SAGAS_WITH_STARTS_SQL)

_HAS_WORK = text(
    f"""
    SELECT EXISTS (
        SELECT FROM unnest(CAST(:definition_ids AS integer[]) || 0) AS d(id),
        LATERAL (SELECT FROM saga_engine.pending_request AS i WHERE {_READY_FOR_DEFINITION}
            LIMIT 1) AS c)
    OR EXISTS ({_SAGAS_WITH_STARTS_SQL})
    OR CAST(current_setting('transaction_read_only') AS boolean)"""  # noqa: S608 - constants
)

_FIND_STARTS_SQL = """
    SELECT i.run_id::text, i.saga, i.version, i.key,
        (SELECT count(*) FROM (
            SELECT FROM saga_engine.pending_request AS h
            WHERE h.run_id = i.run_id AND h.kind <> 'start' AND h.awaits_start
                LIMIT :count_limit) AS limited)
    FROM saga_engine.pending_request AS i
    WHERE i.run_id = ANY (CAST(:run_ids AS uuid[])) AND i.kind = 'start'"""

_FIND_STARTS = text(_FIND_STARTS_SQL)

_FIND_AND_LOCK_STARTS = text(f"{_FIND_STARTS_SQL} ORDER BY i.run_id FOR KEY SHARE OF i")

_EXISTING_RUNS = text(
    """
    SELECT u.id::text FROM unnest(CAST(:run_ids AS uuid[])) AS u(id)
    WHERE EXISTS (SELECT FROM saga_engine.run AS r WHERE r.run_id = u.id)
        OR EXISTS (
            SELECT FROM saga_engine.pending_request AS i
                WHERE i.run_id = u.id AND i.kind = 'start')"""
)

_READ_STARTS = text(
    f"""
    SELECT {_COLUMNS} FROM saga_engine.pending_request
    WHERE run_id = ANY (CAST(:run_ids AS uuid[])) AND kind = 'start'"""  # noqa: S608 - a constant
)
