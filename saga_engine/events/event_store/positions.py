"""
Positions of events, and the horizon: up to which position a reader has everything.

Positions are drawn before their transactions commit, so a reader that continues after the highest
position it has seen would miss events. Transactions announce what they will draw
(`migrations/events/0001_event_tables.py` has the functions and the reasons). Every event at or
below the horizon is visible to the statements that follow, and none is added there. Only
transactions that have appended hold the horizon back.
"""

from saga_engine.events.event_store.event_log import EventLog
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


async def last_drawn(tx: Transaction) -> int:
    """Return the last position that was drawn; no checkpoint is above it. 0: there is no event."""
    found: int = (await tx.execute(_LAST_DRAWN)).scalar_one()
    return found


async def first(tx: Transaction, log: EventLog) -> int:
    """Return the position of the first event that exists; 0: there is no event."""
    statement = _FIRST_WITH_JOURNAL if log.has_journal else _FIRST
    found: int | None = (await tx.execute(statement)).scalar()
    return found or 0


def lost_position(position: int, last_position: int) -> str:
    """Say that a database has lost a position, and what to do, in a sentence."""
    return (
        f"position {position} does not exist: the database has drawn positions up to"
        f" {last_position}. A failover or a restore has lost events. New events would get positions"
        " that were read before: do what docs/operations.md says about events that were lost"
    )


_LAST_DRAWN = text("SELECT last_value FROM saga_engine.event_position")
_FIRST = text("SELECT min(position) FROM saga_engine.stream_event")
_FIRST_WITH_JOURNAL = text(
    """
    SELECT least((SELECT min(position) FROM saga_engine.stream_event),
        (SELECT min(position) FROM saga_engine.journal))"""
)
_HORIZON = text("SELECT saga_engine.event_horizon()")
