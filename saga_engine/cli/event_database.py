"""How commands about projections and feeds open their database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from saga_engine.settings import Settings
from saga_engine.store.database import Database, SqlAlchemyTransaction
from saga_engine.store.schema import EVENT_DATABASE


def event_database(settings: Settings) -> Database:
    """Make a database with event tables, to be opened with `async with`."""
    return Database(settings.require_database_url(), settings, EVENT_DATABASE)


@asynccontextmanager
async def event_transaction() -> AsyncIterator[SqlAlchemyTransaction]:
    """Open a database with event tables for one transaction."""
    async with event_database(Settings.load()) as database, database.transaction() as tx:
        yield tx


@asynccontextmanager
async def registry_transaction(settings: Settings) -> AsyncIterator[SqlAlchemyTransaction]:
    """Open the database with the schemas that consumers read for one transaction."""
    url = settings.registry_database_url
    chosen = url.get_secret_value() if url else settings.require_database_url()
    async with Database(chosen, settings, EVENT_DATABASE) as database, database.transaction() as tx:
        yield tx
