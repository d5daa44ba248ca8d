"""
The `EventStore` in PostgreSQL: one line for each method of `interfaces`.

The functions and their statements are in `positions` and `log_page`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from saga_engine.events.event_store import log_page, positions
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.event_store.log_page import LogFilter, LogPage
from saga_engine.events.event_store.recorded import Recorded
from saga_engine.postgres.statement import Transaction
from saga_engine.settings import Settings
from saga_engine.store.database import Database


class SqlEventTransaction:
    """An EventTransaction over one transaction of PostgreSQL."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def horizon(self) -> int:
        return await positions.horizon(self._tx)

    async def read_page(
        self,
        log: EventLog,
        log_filter: LogFilter,
        bounds: tuple[int, int],
        settings: Settings,
        max_events: int,
    ) -> LogPage:
        return await log_page.read_page(self._tx, log, log_filter, bounds, settings, max_events)

    async def read_stream(
        self, log: EventLog, stream: str, after: int, settings: Settings
    ) -> list[Recorded]:
        return await log_page.read_stream(self._tx, log, stream, after, settings)


class SqlEventStore:
    """An EventStore over the connection pool of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqlEventTransaction]:
        async with self._database.transaction() as tx:
            yield SqlEventTransaction(tx)
