"""
Deletes resolved dead letters and audit records when their retention has passed.

Rows are deleted in batches, each in its own transaction, by ids from an index: no other row is read
or locked, and nothing is written when nothing has expired.
"""

from saga_engine.postgres.statement import TransactionSource, text

BATCH_SIZE = 1000
"""Rows of each table that one transaction deletes."""

BATCHES_MAX = 100
"""Transactions in one call; the next call deletes the rest."""


async def purge_expired(
    database: TransactionSource, *, dead_letter_days: int, audit_days: int
) -> int:
    """
    Delete expired rows, and return how many there were.

    Args:
        dead_letter_days: days since a dead letter was redriven or discarded; 0 keeps all.
        audit_days: days since an action was recorded; 0 keeps all.
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
