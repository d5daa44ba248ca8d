"""
What is kept for some days besides runs: settled dead letters, and the record of who did what.

Deleted in portions, each in a transaction of its own, by ids that were looked up by an index:
nothing is read or locked on the way, and nothing is written where nothing is old.
"""

from saga_engine.postgres.statement import text
from saga_engine.store.database import Database

BATCH_SIZE = 1000
"""Rows of each kind that are deleted in one transaction."""

BATCHES_MAX = 100
"""Transactions in one round; what is left then waits for the next."""


async def purge_expired(database: Database, *, dead_letter_days: int, audit_days: int) -> int:
    """
    Delete what is older; how many rows that were.

    Args:
        dead_letter_retention_days: since they were redriven or discarded; 0 keeps them for ever.
        audit_retention_days: since they were recorded; 0 keeps them for ever.
    """
    deleted = 0
    arguments = {
        "dead_letter_days": dead_letter_days,
        "audit_days": audit_days,
        "row_limit": BATCH_SIZE,
    }
    for _ in range(BATCHES_MAX):
        async with database.transaction() as tx:
            batch_deleted: int = (await tx.execute(_PURGE_EXPIRED, arguments)).scalar_one()
        deleted += batch_deleted
        if not batch_deleted:
            break
    return deleted


_PURGE_EXPIRED = text(
    """
    SELECT saga_engine.purge_expired(CAST(:dead_letter_days AS integer),
        CAST(:audit_days AS integer),
        CAST(:row_limit AS integer))"""
)
