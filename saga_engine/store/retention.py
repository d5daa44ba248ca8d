"""
What is kept for some days besides runs: settled dead letters, and the record of who did what.

Deleted in portions, each in a transaction of its own, by ids that were looked up by an index:
nothing is read or locked on the way, and nothing is written where nothing is old.
"""

from saga_engine.store import audit, dead_letters
from saga_engine.store.database import Database

PORTION = 1000
"""Rows of each kind that are deleted in one transaction."""

PORTIONS = 100
"""Transactions in one round; what is left then waits for the next."""


async def purge(database: Database, *, dead_letter_days: int, audit_days: int) -> int:
    """
    Delete what is older; how many rows that were.

    Args:
        dead_letter_days: since they were redriven or discarded; 0 keeps them for ever.
        audit_days: since they were recorded; 0 keeps them for ever.
    """
    deleted = 0
    for _ in range(PORTIONS):
        portion = 0
        async with database.transaction() as tx:
            if dead_letter_days:
                letters = await dead_letters.settled_before(tx, dead_letter_days, limit=PORTION)
                portion += await dead_letters.delete(tx, letters) if letters else 0
            if audit_days:
                acts = await audit.older_than(tx, audit_days, limit=PORTION)
                portion += await audit.delete(tx, acts) if acts else 0
        deleted += portion
        if not portion:
            break
    return deleted
