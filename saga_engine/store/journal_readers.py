"""
Projections and feeds that have not read the journals of a month that retention wants to drop.

Retention keeps such a month for them. A reader that has not moved for `retention_hold` seconds is
passed over: the month is dropped, and the reader is marked with the last position that it missed.
The tables of projections and feeds are part of the event tables, see `saga_engine.events`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from saga_engine.postgres.statement import Transaction, text


class ReaderKind(StrEnum):
    """What reads journals."""

    PROJECTION = "projection"
    FEED = "feed"


@dataclass(frozen=True, slots=True)
class JournalReader:
    """
    A projection or a feed that has not read everything.

    Args:
        kind: which of the two.
        name: of it.
        position: up to which it has read everything.
        unmoved_s: seconds since its position or its state has changed.
    """

    kind: ReaderKind
    name: str
    position: int
    unmoved_s: float


async def find_behind(tx: Transaction, month: str) -> list[JournalReader]:
    """Find the readers of runs that have not read all journals of a month."""
    last_position = await _last_position(tx, month)
    return [
        JournalReader(ReaderKind(kind), name, position, unmoved_s)
        for kind, name, position, unmoved_s in await tx.execute(_BEHIND, {"last": last_position})
    ]


async def pass_over(tx: Transaction, month: str) -> list[JournalReader]:
    """
    Mark the readers that have not read a month, and from where on all journals are stored.

    Args:
        tx: the transaction that detaches the month.
        month: whose table of journals still exists.

    Returns:
        The readers.
    """
    passed_over = await find_behind(tx, month)
    last_position = await _last_position(tx, month)
    for kind, statement in (
        (ReaderKind.PROJECTION, _MARK_PROJECTIONS),
        (ReaderKind.FEED, _MARK_FEEDS),
    ):
        names = [each.name for each in passed_over if each.kind is kind]
        if names:
            await tx.execute(statement, {"name": names, "last": last_position})
    await tx.execute(_SET_COMPLETE_FROM, {"last": last_position})
    return passed_over


async def incomplete(tx: Transaction) -> Sequence[tuple[ReaderKind, str]]:
    """The projections and feeds that are marked as passed over."""
    return [(ReaderKind(kind), name) for kind, name in await tx.execute(_INCOMPLETE)]


async def _last_position(tx: Transaction, month: str) -> int:
    """The position of the last event of a month; 0 if it has none."""
    last_position: int = (await tx.execute(text(_LAST.format(month=month)))).scalar_one()
    return last_position


# The engine has named the table, so the name needs no quotes. What is not an array has one event.
_LAST = """
    SELECT coalesce((
        SELECT j.position - 1 + CASE WHEN jsonb_typeof(j.events) = 'array'
            THEN greatest(1, jsonb_array_length(j.events)) ELSE 1 END
        FROM saga_engine.journal_{month} AS j ORDER BY j.position DESC LIMIT 1), 0)"""

# A projection whose streams are parked, and a feed whose streams wait, has not read their rest.
_BEHIND = text(
    """
    SELECT kind, name, min(position),
        extract(epoch FROM clock_timestamp() - max(moved_at))::double precision
    FROM (
        SELECT 'projection' AS kind, name, position, updated_at AS moved_at
        FROM saga_engine.projection WHERE reads_runs
        UNION ALL
        SELECT 'feed', name, position, updated_at FROM saga_engine.feed WHERE reads_runs
        UNION ALL
        SELECT 'projection', projection, next_position - 1, parked_at
        FROM saga_engine.parked_stream WHERE stream LIKE 'run-%'
        UNION ALL
        SELECT 'feed', feed, next_position - 1, first_failed_at
        FROM saga_engine.feed_waiting_stream WHERE stream LIKE 'run-%') AS reader
    WHERE position < CAST(:last AS bigint)
    GROUP BY kind, name ORDER BY kind, name"""
)

_MARK_PROJECTIONS = text(
    """
    UPDATE saga_engine.projection AS p SET missing_until = CAST(:last AS bigint)
    WHERE name = ANY (CAST(:name AS text[])) AND (position < :last OR EXISTS (
        SELECT FROM saga_engine.parked_stream AS s
        WHERE s.projection = p.name AND s.projection_version = p.version
            AND s.stream LIKE 'run-%' AND s.next_position <= :last))"""
)

_MARK_FEEDS = text(
    """
    UPDATE saga_engine.feed AS f SET missing_until = CAST(:last AS bigint)
    WHERE name = ANY (CAST(:name AS text[])) AND (position < :last OR EXISTS (
        SELECT FROM saga_engine.feed_waiting_stream AS s
        WHERE s.feed = f.name AND s.sink = f.sink
            AND s.stream LIKE 'run-%' AND s.next_position <= :last))"""
)

_SET_COMPLETE_FROM = text(
    """
    UPDATE saga_engine.event_log
    SET runs_complete_from = greatest(runs_complete_from, CAST(:last AS bigint) + 1)"""
)

_INCOMPLETE = text(
    """
    SELECT DISTINCT 'projection', name FROM saga_engine.projection WHERE missing_until IS NOT NULL
    UNION ALL
    SELECT 'feed', name FROM saga_engine.feed WHERE missing_until IS NOT NULL"""
)
