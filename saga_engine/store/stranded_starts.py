"""Stranded starts: pending starts of a definition that no worker has now, or has ever had."""

from dataclasses import asdict
from datetime import timedelta

from saga_engine.postgres.statement import Transaction, text
from saga_engine.store.bounded_count import GROUPS_MAX
from saga_engine.store.pending_requests import (
    PendingRequest,
    ReadLimits,
    to_pending_requests,
)
from saga_engine.store.request_queue import RETURNING_REQUEST, unblock_requests


async def count(tx: Transaction, count_limit: int) -> dict[str, int]:
    """Count stranded starts by saga, up to *count_limit*."""
    return dict((await tx.execute(_COUNT, {"count_limit": count_limit})).all())


async def take_without_definition(
    tx: Transaction, min_age: timedelta, limit: int, body_limits: ReadLimits
) -> list[PendingRequest]:
    """
    Take starts of other roles that are older than *min_age* and that no worker could ever process.

    They were recorded with a definition that no worker has ever loaded.
    """
    arguments = {"age": min_age, "limit": limit, **asdict(body_limits)}
    taken = to_pending_requests(await tx.execute(_TAKE_WITHOUT_DEFINITION, arguments))
    await unblock_requests(tx, [request.run_id for request in taken])
    return taken


async def cancel_start(tx: Transaction, run_id: str, audit_id: str) -> bool:
    """
    Delete the start of a run that no worker can start, and accept the action that asks for it.

    The business key is free again. Requests that wait for the start are processed: there is no such
    run.

    Returns:
        Whether the start was deleted. False: there is no pending start, or it came over RabbitMQ
        and may be delivered again, or a worker had the definition in the last 10 minutes. The
        action has no outcome then.

    Raises:
        StoreRefused: the role has not recorded the action for that run, or it has an outcome.
    """
    arguments = {"run_id": run_id, "audit_id": audit_id}
    cancelled: bool = (await tx.execute(_CANCEL_START, arguments)).scalar_one()
    return cancelled


# From one pinned definition to the next by the index. A start that is not accepted yet has no
# fingerprint.
_START_PINS = """
    WITH RECURSIVE pins AS (
        (SELECT i.saga, coalesce(i.version, 0) AS version,
                coalesce(i.fingerprint, '') AS fingerprint
            FROM saga_engine.pending_request AS i WHERE i.kind = 'start'
            ORDER BY i.saga, coalesce(i.version, 0), coalesce(i.fingerprint, '') LIMIT 1)
        UNION ALL
        SELECT n.saga, n.version, n.fingerprint FROM pins AS p, LATERAL (
            SELECT i.saga, coalesce(i.version, 0) AS version,
                coalesce(i.fingerprint, '') AS fingerprint
            FROM saga_engine.pending_request AS i WHERE i.kind = 'start'
                AND (i.saga, coalesce(i.version, 0), coalesce(i.fingerprint, ''))
                    > (p.saga, p.version, p.fingerprint)
            ORDER BY i.saga, coalesce(i.version, 0), coalesce(i.fingerprint, '') LIMIT 1) AS n
    )"""

_COUNT = text(
    f"""{_START_PINS}
    SELECT p.saga, least(CAST(:count_limit AS bigint), sum(c.number))::integer
    FROM (SELECT saga, version, fingerprint FROM pins LIMIT {GROUPS_MAX}) AS p, LATERAL (
        SELECT count(*) AS number FROM (
            SELECT FROM saga_engine.pending_request AS i
            WHERE i.kind = 'start' AND i.saga = p.saga AND coalesce(i.version, 0) = p.version
                AND coalesce(i.fingerprint, '') = p.fingerprint
            LIMIT :count_limit) AS limited) AS c
    WHERE p.fingerprint <> '' AND NOT EXISTS (
        SELECT FROM saga_engine.definition AS d
        WHERE d.name = p.saga AND d.version = p.version AND d.fingerprint = p.fingerprint
            AND d.present_until > clock_timestamp())
    GROUP BY p.saga"""  # noqa: S608 - constants
)

_CANCEL_START = text(
    "SELECT saga_engine.cancel_start(CAST(:run_id AS uuid), CAST(:audit_id AS uuid))"
)

_TAKE_WITHOUT_DEFINITION = text(
    f"""{_START_PINS}
    DELETE FROM saga_engine.pending_request WHERE id = ANY (ARRAY(
        SELECT t.id FROM pins AS p, LATERAL (
            SELECT i.id FROM saga_engine.pending_request AS i
            WHERE i.kind = 'start' AND i.saga = p.saga AND coalesce(i.version, 0) = p.version
                AND coalesce(i.fingerprint, '') = p.fingerprint AND i.role IS NOT NULL
                AND i.received_at < clock_timestamp() - CAST(:age AS interval)
            ORDER BY coalesce(i.not_before, i.received_at), i.id
            LIMIT :limit FOR UPDATE OF i SKIP LOCKED) AS t
        WHERE p.fingerprint <> '' AND NOT EXISTS (
            SELECT FROM saga_engine.definition AS d
            WHERE d.name = p.saga AND d.version = p.version AND d.fingerprint = p.fingerprint)
        LIMIT :limit))"""  # noqa: S608 - constants
    + RETURNING_REQUEST
)
