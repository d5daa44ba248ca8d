"""
The queue of pending requests: which of them a worker takes, and in which order.

A worker deletes the requests that it takes, in the transaction that processes them: a rollback
gives them back. Requests that another worker has locked are skipped, so no worker waits here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta

from saga_engine.postgres.statement import Transaction, text
from saga_engine.store.byte_limits import UNLIMITED_BYTES
from saga_engine.store.pending_requests import (
    DEFAULT_READ_LIMITS,
    REQUEST_COLUMNS,
    PendingRequest,
    ReadLimits,
    to_pending_requests,
)


async def take(
    tx: Transaction,
    *,
    definition_ids: Sequence[int],
    limit: int,
    body_limits: ReadLimits = DEFAULT_READ_LIMITS,
    max_bytes: int = UNLIMITED_BYTES,
) -> list[PendingRequest]:
    """
    Take up to *limit* requests that are not starts and that this worker can process, oldest first.

    Args:
        definition_ids: the definitions that the worker has.
        max_bytes: after that many bytes of bodies no further request is taken.
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
    body_limits: ReadLimits = DEFAULT_READ_LIMITS,
    max_bytes: int = UNLIMITED_BYTES,
) -> list[PendingRequest]:
    """
    Take up to *limit* starts that this worker can process, oldest first.

    The requests that wait for these starts can be taken from now on, in this transaction too.

    Args:
        slots: how many starts of each saga may be taken, by its name.
        definition_ids: the definitions that the worker has. A start that is pinned to another
            definition is not taken.
        max_bytes: after that many bytes of bodies no further start is taken.
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
    await unblock_requests(tx, [request.run_id for request in taken])
    return taken


async def unblock_requests(tx: Transaction, run_ids: Sequence[str]) -> None:
    """Release the requests that wait for the starts of these runs: the starts were taken."""
    if run_ids:
        await tx.execute(_UNBLOCK_REQUESTS, {"run_ids": list(run_ids)})


async def defer(tx: Transaction, ids: Sequence[int], delay: timedelta) -> None:
    """Defer requests: no worker takes them before *delay* has passed."""
    await tx.execute(_DEFER, {"ids": list(ids), "delay": delay})


async def sagas_with_starts(
    tx: Transaction, sagas: Sequence[str], definition_ids: Sequence[int]
) -> set[str]:
    """Find which of *sagas* have pending starts that this worker can take."""
    arguments = {"sagas": list(sagas), "definition_ids": list(definition_ids)}
    return set((await tx.execute(_SAGAS_WITH_STARTS, arguments)).scalars())


async def has_work(tx: Transaction, sagas: Sequence[str], definition_ids: Sequence[int]) -> bool:
    """
    Whether this worker can take anything: a start of *sagas*, or another request.

    True on a read-only server, too: it may be a standby that lags behind, and the attempt to take
    something shows that.
    """
    arguments = {"sagas": list(sagas), "definition_ids": list(definition_ids)}
    return bool((await tx.execute(_HAS_WORK, arguments)).scalar_one())


RETURNING_REQUEST = f"""
    RETURNING {REQUEST_COLUMNS}"""

_READY_AT = "coalesce(p.not_before, p.received_at)"

_READY_FOR_DEFINITION = f"""
    p.kind <> 'start' AND NOT p.awaits_start AND coalesce(p.definition_id, 0) = d.id
        AND {_READY_AT} <= (SELECT clock_timestamp())"""

_LOCKED_ROWS_MARGIN = 1000
"""
Rows that a statement reads beyond those that it takes, because other workers may have locked some:
five workers with a batch of the default size each. Where more are locked, the worker takes fewer,
and the rest at its next poll. A row costs microseconds, so this is not a setting.
"""

# Of the candidates, the first that are not locked are locked, and no others. The rows come in the
# order of the candidates, so LIMIT ends the locking. A request without a definition goes to any
# worker: that worker looks the run up, and passes the request on to a worker that has the
# definition, or holds it while a start of the run is pending.
_TAKE = text(
    f"""
    DELETE FROM saga_engine.pending_request WHERE id = ANY (ARRAY(
        SELECT b.id FROM (SELECT l.id, sum(l.size) OVER (ORDER BY l.id) - l.size AS before FROM (
            SELECT t.id, t.size FROM (
                SELECT c.id FROM unnest(CAST(:definition_ids AS integer[]) || 0) AS d(id),
                LATERAL (
                    SELECT p.id, {_READY_AT} AS ready_at FROM saga_engine.pending_request AS p
                    WHERE {_READY_FOR_DEFINITION}
                    ORDER BY {_READY_AT}, p.id LIMIT :limit + {_LOCKED_ROWS_MARGIN}) AS c
                ORDER BY c.ready_at, c.id LIMIT :limit + {_LOCKED_ROWS_MARGIN}) AS c,
            LATERAL (
                SELECT p.id, octet_length(p.body) AS size FROM saga_engine.pending_request AS p
                WHERE p.id = c.id AND NOT p.awaits_start
                    AND {_READY_AT} <= (SELECT clock_timestamp())
                FOR UPDATE OF p SKIP LOCKED) AS t
            LIMIT :limit) AS l) AS b
        WHERE b.before < :max_bytes))"""  # noqa: S608 - constants
    + RETURNING_REQUEST
)

# The starts that a worker can take: those that are pinned to a definition that it has, and those
# that are not accepted yet and name a version that it has, or no version.
_DEFINITION_PINS = """
    SELECT 0 AS version, '' AS fingerprint
    UNION ALL
    SELECT d.version, f.fingerprint
    FROM saga_engine.definition AS d, unnest(ARRAY['', d.fingerprint]) AS f(fingerprint)
    WHERE d.id = ANY (CAST(:definition_ids AS integer[])) AND d.name = w.saga"""

_READY_FOR_PIN = """
    p.kind = 'start' AND p.saga = w.saga AND coalesce(p.version, 0) = pin.version
        AND coalesce(p.fingerprint, '') = pin.fingerprint
        AND coalesce(p.not_before, p.received_at) <= (SELECT clock_timestamp())"""

# Of each saga as many starts are locked as it has slots.
_TAKE_STARTS = text(
    f"""
    DELETE FROM saga_engine.pending_request WHERE id = ANY (ARRAY(
        SELECT b.id FROM (SELECT l.id, sum(l.size) OVER (ORDER BY l.id) - l.size AS before FROM (
            SELECT t.id, t.size
            FROM unnest(CAST(:sagas AS text[]), CAST(:slots AS integer[])) AS w(saga, slots),
            LATERAL (
                SELECT k.id, k.size FROM (
                    SELECT c.id FROM ({_DEFINITION_PINS}) AS pin,
                    LATERAL (
                        SELECT p.id, {_READY_AT} AS ready_at FROM saga_engine.pending_request AS p
                        WHERE {_READY_FOR_PIN}
                        ORDER BY {_READY_AT}, p.id LIMIT w.slots + {_LOCKED_ROWS_MARGIN}) AS c
                    ORDER BY c.ready_at, c.id LIMIT w.slots + {_LOCKED_ROWS_MARGIN}) AS c,
                LATERAL (
                    SELECT p.id, octet_length(p.body) AS size FROM saga_engine.pending_request AS p
                    WHERE p.id = c.id AND {_READY_AT} <= (SELECT clock_timestamp())
                    FOR UPDATE OF p SKIP LOCKED) AS k
                LIMIT w.slots) AS t
            ORDER BY t.id LIMIT :limit) AS l) AS b
        WHERE b.before < :max_bytes))"""  # noqa: S608 - constants
    + RETURNING_REQUEST
)

_UNBLOCK_REQUESTS = text(
    """
    UPDATE saga_engine.pending_request SET awaits_start = false
    WHERE run_id = ANY (CAST(:run_ids AS uuid[])) AND kind <> 'start' AND awaits_start"""
)

_DEFER = text(
    """
    UPDATE saga_engine.pending_request
    SET not_before = clock_timestamp() + CAST(:delay AS interval)
    WHERE id = ANY (CAST(:ids AS bigint[]))"""
)

_SAGAS_WITH_STARTS_SQL = f"""
    SELECT w.saga FROM unnest(CAST(:sagas AS text[])) AS w(saga)
    WHERE EXISTS (
        SELECT FROM ({_DEFINITION_PINS}) AS pin,
        LATERAL (
            SELECT FROM saga_engine.pending_request AS p WHERE {_READY_FOR_PIN} LIMIT 1) AS c)"""  # noqa: S608 - constants

_SAGAS_WITH_STARTS = text(_SAGAS_WITH_STARTS_SQL)

_HAS_WORK = text(
    f"""
    SELECT EXISTS (
        SELECT FROM unnest(CAST(:definition_ids AS integer[]) || 0) AS d(id),
        LATERAL (
            SELECT FROM saga_engine.pending_request AS p
            WHERE {_READY_FOR_DEFINITION} LIMIT 1) AS c)
    OR EXISTS ({_SAGAS_WITH_STARTS_SQL})
    OR CAST(current_setting('transaction_read_only') AS boolean)"""  # noqa: S608 - constants
)
