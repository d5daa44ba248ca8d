"""
Positions of events, and the horizon: up to which position a reader has everything.

Positions are drawn before their transactions commit, so a reader that continues after the highest
position it has seen would miss events. Transactions announce what they will draw
(`migrations/events/0001_event_tables.py` has the functions and the reasons). Every event at or
below the horizon is visible to the statements that follow, and none is added there. Only
transactions that have appended hold the horizon back.
"""

from saga_engine.postgres.statement import Transaction, text


async def horizon(tx: Transaction) -> int:
    """
    Return the horizon now; 0 while there is no event.

    Args:
        tx: at READ COMMITTED, on the primary. Read the events with a later statement.

    Raises:
        StoreUnavailable: it is a standby, which does not know the open transactions.
    """
    found: int = (await tx.execute(_HORIZON)).scalar_one()
    return found


_HORIZON = text("SELECT saga_engine.event_horizon()")
