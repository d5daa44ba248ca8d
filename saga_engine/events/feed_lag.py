"""How far feeds are behind the horizon, in positions and in seconds."""

from collections.abc import Sequence
from dataclasses import dataclass

from saga_engine.events import feed_table, positions
from saga_engine.events.event_log import EventLog
from saga_engine.events.feed_table import StoredFeed
from saga_engine.events.projection_lag import read_ages
from saga_engine.postgres.statement import Transaction


@dataclass(frozen=True, slots=True)
class FeedLag:
    """
    One feed, and what it has not published.

    Args:
        feed: as it is stored.
        lag_events: positions up to the horizon; that many events at most.
        lag_seconds: age of the next event up to the horizon; 0 if there is none.
    """

    feed: StoredFeed
    lag_events: int
    lag_seconds: float


async def read_lags(
    tx: Transaction, log: EventLog, name: str | None = None
) -> tuple[int, Sequence[FeedLag]]:
    """
    Read the horizon, and the lag of all feeds or of those of one name.

    Args:
        tx: at READ COMMITTED, on the primary.
        log: of that database.
        name: of a feed; None: all.

    Returns:
        The horizon, and the feeds by name.
    """
    horizon = await positions.horizon(tx)
    stored = await feed_table.read(tx, name)
    ages = await read_ages(tx, log, [each.position for each in stored], horizon)
    return horizon, [
        FeedLag(each, max(0, horizon - each.position), ages.get(each.position, 0.0))
        for each in stored
    ]
