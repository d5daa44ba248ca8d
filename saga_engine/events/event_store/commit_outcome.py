"""
Whether a transaction that has appended was committed, although its COMMIT was not answered.

Its connection is lost, and the server may still be committing. Once the horizon has passed the
positions that the transaction drew, it has ended, and its last event is either there or was never
committed.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from saga_engine.errors import StoreUnavailable
from saga_engine.events.event_store.append import Appended
from saga_engine.postgres.statement import Transaction, text
from saga_engine.settings import Settings
from saga_engine.store.database import Database

Result = TypeVar("Result")

_POLL_INTERVAL = 0.05
"""Seconds between two questions; a server that commits takes milliseconds."""


async def commit(
    database: Database,
    work: Callable[[Transaction], Awaitable[tuple[Result, Appended | None]]],
    settings: Settings,
) -> Result:
    """
    Do *work* in one transaction, and find out whether it was committed.

    Args:
        database: opens the transaction.
        work: appends in it, and returns its result and what it has appended; None: nothing, so
            that the result is right whether it was committed or not.
        settings: after `database_transaction_timeout` seconds the outcome stays unknown.

    Raises:
        StoreUnavailable: nothing was committed, unless the text says that this is unknown.
        StoreError: as *work* and `Database.transaction` do.
    """
    done: tuple[Result, Appended | None] | None = None
    try:
        async with database.transaction() as tx:
            done = await work(tx)
    except StoreUnavailable as error:
        if done is None:
            raise
        if done[1] is not None:
            await _require_committed(database, done[1], settings, error)
    return done[0]


async def _require_committed(
    database: Database, appended: Appended, settings: Settings, error: StoreUnavailable
) -> None:
    try:
        async with asyncio.timeout(settings.database_transaction_timeout):
            committed = await _was_committed(database, appended)
    except TimeoutError:
        raise StoreUnavailable(
            f"{error} Whether the events were appended is unknown: read the stream."
        ) from None
    if not committed:
        raise StoreUnavailable(f"{error} Nothing was appended: try again.") from None


async def _was_committed(database: Database, appended: Appended) -> bool:
    while True:
        try:
            async with database.transaction() as tx:
                ended = (await tx.execute(_HAS_ENDED, {"position": appended.position})).scalar_one()
                if ended:
                    rows = await tx.execute(_LAST_EVENT, {"position": appended.position})
                    return any(_is_last_of(appended, row) for row in rows)
        except StoreUnavailable:
            pass
        await asyncio.sleep(_POLL_INTERVAL)


def _is_last_of(appended: Appended, row: Any) -> bool:
    """
    Whether the row is the last event that was appended.

    The time distinguishes it from an event of another append, which got the same position and
    version because a failover has lost both.
    """
    version = appended.versions.get(row.stream)
    return (version, appended.recorded_at) == (row.version, row.recorded_at)


# After a crash the sequence may be behind what the lost transaction drew.
_HAS_ENDED = text(
    """
    SELECT saga_engine.event_horizon() >= :position
        OR (SELECT last_value < :position FROM saga_engine.event_position)"""
)
_LAST_EVENT = text(
    """
    SELECT stream, version, recorded_at FROM saga_engine.stream_event
    WHERE position = :position"""
)
