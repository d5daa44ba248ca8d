"""How far projections are behind the horizon, in positions and in seconds."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from saga_engine.events import positions, projection_table
from saga_engine.events.event_log import EventLog
from saga_engine.events.projection_table import StoredProjection
from saga_engine.postgres.statement import Transaction, text


@dataclass(frozen=True, slots=True)
class ProjectionLag:
    """
    One projection, and what it has not read.

    Args:
        projection: as it is stored.
        lag_events: positions up to the horizon; that many events at most.
        lag_seconds: age of the next event up to the horizon; 0 if there is none.
    """

    projection: StoredProjection
    lag_events: int
    lag_seconds: float


async def read_lags(
    tx: Transaction, log: EventLog, name: str | None = None
) -> tuple[int, Sequence[ProjectionLag]]:
    """
    Read the horizon, and the lag of all projections or of those of one name.

    Args:
        tx: at READ COMMITTED, on the primary.
        log: of that database.
        name: of a projection; None: all.

    Returns:
        The horizon, and the projections by name and version.
    """
    horizon = await positions.horizon(tx)
    stored = await projection_table.read(tx, name)
    ages = await read_ages(tx, log, [each.position for each in stored], horizon)
    return horizon, [
        ProjectionLag(each, max(0, horizon - each.position), ages.get(each.position, 0.0))
        for each in stored
    ]


async def read_ages(
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
