"""Accepted starts that wait for a definition that no worker has had lately."""

from sqlalchemy import text

from saga_engine.store.database import Transaction


async def count(tx: Transaction, most: int) -> dict[str, int]:
    """Count them by saga, up to *most*."""
    return dict((await tx.execute(_COUNT, {"most": most})).all())


# From one pin to the next by their index; what is not accepted yet has no fingerprint.
_COUNT = text(
    """
    WITH RECURSIVE pins AS (
        (SELECT i.saga, coalesce(i.version, 0) AS version, coalesce(i.fingerprint, '') AS mark
            FROM saga_engine.inbox AS i WHERE i.kind = 'start'
            ORDER BY i.saga, coalesce(i.version, 0), coalesce(i.fingerprint, '') LIMIT 1)
        UNION ALL
        SELECT n.saga, n.version, n.mark FROM pins AS p, LATERAL (
            SELECT i.saga, coalesce(i.version, 0) AS version, coalesce(i.fingerprint, '') AS mark
            FROM saga_engine.inbox AS i WHERE i.kind = 'start'
                AND (i.saga, coalesce(i.version, 0), coalesce(i.fingerprint, ''))
                    > (p.saga, p.version, p.mark)
            ORDER BY i.saga, coalesce(i.version, 0), coalesce(i.fingerprint, '') LIMIT 1) AS n
    )
    SELECT p.saga, least(CAST(:most AS bigint), sum(c.number))::integer
    FROM (SELECT saga, version, mark FROM pins LIMIT 1000) AS p, LATERAL (
        SELECT count(*) AS number FROM (
            SELECT FROM saga_engine.inbox AS i
            WHERE i.kind = 'start' AND i.saga = p.saga AND coalesce(i.version, 0) = p.version
                AND coalesce(i.fingerprint, '') = p.mark LIMIT :most) AS few) AS c
    WHERE p.mark <> '' AND NOT EXISTS (
        SELECT FROM saga_engine.definition AS d
        WHERE d.name = p.saga AND d.version = p.version AND d.fingerprint = p.mark
            AND d.last_seen > clock_timestamp() - interval '10 minutes')
    GROUP BY p.saga"""
)
