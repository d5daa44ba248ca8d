"""How far projections or feeds are behind the horizon, in positions and in seconds."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from saga_engine.events.event_store import positions
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.postgres.statement import Transaction, text


class Reader(Protocol):
    """A projection or a feed as it is stored."""

    @property
    def position(self) -> int:
        """Everything up to it was read."""


StoredReader = TypeVar("StoredReader", bound=Reader)


@dataclass(frozen=True, slots=True)
class Lag(Generic[StoredReader]):
    """
    One projection or feed, and what it has not read.

    Args:
        stored: as it is stored.
        lag_events: positions up to the horizon; that many events at most.
        lag_seconds: age of the next event up to the horizon; 0 if there is none.
    """

    stored: StoredReader
    lag_events: int
    lag_seconds: float


async def read_lags(
    tx: Transaction, log: EventLog, stored: Sequence[StoredReader]
) -> tuple[int, Sequence[Lag[StoredReader]]]:
    """
    Read the horizon, and the lag of projections or feeds.

    Args:
        tx: at READ COMMITTED, on the primary.
        log: of that database.
        stored: projections or feeds that were read in this transaction.

    Returns:
        The horizon, and a lag for each of *stored*.
    """
    horizon = await positions.horizon(tx)
    ages = await _read_ages(tx, log, [each.position for each in stored], horizon)
    return horizon, [
        Lag(each, max(0, horizon - each.position), ages.get(each.position, 0.0)) for each in stored
    ]


async def _read_ages(
    tx: Transaction, log: EventLog, after: Collection[int], horizon: int
) -> Mapping[int, float]:
    """
    Read how old the next event after each position is, up to the horizon.

    Returns:
        Seconds for each position that has a next event.
    """
    behind = sorted({each for each in after if each < horizon})
    statement = _AGES_WITH_JOURNAL if log.has_journal else _AGES
    rows = await tx.execute(statement, {"position": behind, "horizon": horizon})
    ages: dict[int, float] = dict(tuple(row) for row in rows)
    return ages


_AGES = text(
    """
    SELECT p.position, greatest(0, extract(epoch FROM clock_timestamp() - next.recorded_at)::float8)
    FROM unnest(CAST(:position AS bigint[])) AS p(position)
    CROSS JOIN LATERAL (
        SELECT e.recorded_at FROM saga_engine.stream_event AS e
        WHERE e.position > p.position AND e.position <= :horizon
        ORDER BY e.position LIMIT 1) AS next"""
)

# A projection can be in the middle of a row of the journal: the next event is then that of the row
# after it, or of another stream, and the lag is a little less.
_AGES_WITH_JOURNAL = text(
    """
    SELECT p.position,
        greatest(0, extract(epoch FROM clock_timestamp() - min(next.recorded_at))::float8)
    FROM unnest(CAST(:position AS bigint[])) AS p(position)
    CROSS JOIN LATERAL (
        (SELECT e.recorded_at FROM saga_engine.stream_event AS e
            WHERE e.position > p.position AND e.position <= :horizon
            ORDER BY e.position LIMIT 1)
        UNION ALL
        (SELECT j.recorded_at FROM saga_engine.journal AS j
            WHERE j.position > p.position AND j.position <= :horizon
            ORDER BY j.position LIMIT 1)) AS next
    GROUP BY p.position"""
)
