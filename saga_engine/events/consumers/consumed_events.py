"""
The table `consumed_event`: which events a consumer has consumed, so that none takes effect twice.

A row is written in the transaction of the effect. Rows are kept for `consumed_event_retention`
seconds: an event that is published again later takes effect again.
"""

from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from uuid import UUID

from saga_engine.postgres.statement import Transaction, text

PURGED_AT_ONCE = 10_000
"""Rows that one transaction removes."""


async def known(tx: Transaction, consumer: str, keys: Collection[UUID]) -> AbstractSet[UUID]:
    """Return which of these events were consumed."""
    parameters = {"consumer": consumer, "keys": [*map(str, keys)]}
    return {UUID(row.event) for row in await tx.execute(_KNOWN, parameters)}


async def insert(tx: Transaction, consumer: str, keys: Sequence[UUID]) -> None:
    """Note that events are consumed; the transaction has looked that they were not."""
    if keys:
        await tx.execute(_INSERT, {"consumer": consumer, "keys": [*map(str, keys)]})


async def purge(tx: Transaction, consumer: str, retention: float) -> bool:
    """Remove the oldest rows that are older than *retention* seconds; whether there may be more."""
    parameters = {"consumer": consumer, "retention": retention, "limit": PURGED_AT_ONCE}
    return (await tx.execute(_PURGE, parameters)).rowcount == PURGED_AT_ONCE


_KNOWN = text(
    """
    SELECT event::text AS event FROM saga_engine.consumed_event
    WHERE consumer = :consumer AND event = ANY(CAST(CAST(:keys AS text[]) AS uuid[]))"""
)
_INSERT = text(
    """
    INSERT INTO saga_engine.consumed_event (consumer, event)
    SELECT :consumer, event FROM unnest(CAST(CAST(:keys AS text[]) AS uuid[])) AS e(event)"""
)
_PURGE = text(
    """
    DELETE FROM saga_engine.consumed_event
    WHERE (consumer, event) IN (
        SELECT consumer, event FROM saga_engine.consumed_event
        WHERE consumer = :consumer AND consumed_at
            < clock_timestamp() - make_interval(secs => CAST(:retention AS float8))
        ORDER BY consumed_at LIMIT :limit)"""
)
