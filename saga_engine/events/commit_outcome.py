"""
Whether a transaction that has appended was committed, although its COMMIT was not answered.

Its connection is lost, and the server may still be committing. Once the horizon has passed the
positions that the transaction drew, it has ended, and its last event is either there or was never
committed.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from saga_engine.errors import StoreUnavailable
from saga_engine.events.append import Appended
from saga_engine.postgres.statement import Transaction, text
from saga_engine.settings import Settings
from saga_engine.store.database import Database

Result = TypeVar("Result")

_POLL_INTERVAL = 0.05
"""Seconds between two questions; a server that commits takes milliseconds."""


async def commit(
    database: Database,
    work: Callable[[Transaction], Awaitable[Result]],
    appended: Callable[[Result], Appended],
    settings: Settings,
) -> Result:
    """
    Do *work* in one transaction, and find out whether it was committed.

    Args:
        database: opens the transaction.
        work: appends in it.
        appended: says what was appended, from the result of *work*.
        settings: after `database_transaction_timeout` seconds the outcome stays unknown.

    Raises:
        StoreUnavailable: nothing was committed, unless the text says that this is unknown.
        StoreError: as *work* and `Database.transaction` do.
    """
    result: Result | None = None
    try:
        async with database.transaction() as tx:
            result = await work(tx)
    except StoreUnavailable as error:
        if result is None:
            raise
        await _require_committed(database, appended(result), settings, error)
    return result


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
                    return any(appended.versions.get(row[0]) == row[1] for row in rows)
        except StoreUnavailable:
            pass
        await asyncio.sleep(_POLL_INTERVAL)


# After a crash the sequence may be behind what the lost transaction drew.
_HAS_ENDED = text(
    """
    SELECT saga_engine.event_horizon() >= :position
        OR (SELECT last_value < :position FROM saga_engine.event_position)"""
)
_LAST_EVENT = text(
    "SELECT stream, version FROM saga_engine.stream_event WHERE position = :position"
)
