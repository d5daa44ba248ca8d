"""How commands about projections and feeds open their database, and the reason they are given."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from cyclopts import Parameter

from saga_engine.settings import Settings
from saga_engine.store.database import Database, SqlAlchemyTransaction
from saga_engine.store.schema import EVENT_DATABASE

Reason = Annotated[str, Parameter(help="Why; it stays with the failure.")]


@asynccontextmanager
async def event_transaction() -> AsyncIterator[SqlAlchemyTransaction]:
    """Open a database with event tables for one transaction."""
    settings = Settings.load()
    async with (
        Database(settings.require_database_url(), settings, EVENT_DATABASE) as database,
        database.transaction() as tx,
    ):
        yield tx
