"""The `FeedStore` in PostgreSQL: its functions and their statements are in `feed_table`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.feeds import feed_failures, feed_table
from saga_engine.events.feeds.feed_table import FeedKey, Progress
from saga_engine.events.readers.sql_event_store import SqlEventTransaction
from saga_engine.store.database import Database


class SqlFeedTransaction(SqlEventTransaction):
    """A FeedTransaction over one transaction of PostgreSQL."""

    async def acquire_feed(self, key: FeedKey, owner: str, lease: float) -> int | None:
        return await feed_table.acquire(self._tx, key, owner, lease)

    async def save_feed(self, key: FeedKey, progress: Progress, owner: str, lease: float) -> bool:
        return await feed_table.save(self._tx, key, progress, owner, lease)

    async def save_feed_differences(self, key: FeedKey, differences: tuple[str, ...]) -> None:
        await feed_table.set_differences(self._tx, key, differences)

    async def stop_feed(self, key: FeedKey, event: Recorded, problem: str) -> None:
        await feed_failures.stop(self._tx, key, event, problem)


class SqlFeedStore:
    """A FeedStore over the connection pool of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqlFeedTransaction]:
        async with self._database.transaction() as tx:
            yield SqlFeedTransaction(tx)
