"""How commands reach the database, and how they read what the user typed to name a thing in it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from saga_engine.errors import ConfigurationError, NotFound
from saga_engine.postgres.statement import Transaction
from saga_engine.settings import Settings
from saga_engine.store.session import Session


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Session]:
    """Open the engine's database, checked to be usable."""
    async with Session(settings.require_database_url(), settings) as session:
        yield session


@asynccontextmanager
async def open_transaction() -> AsyncIterator[Transaction]:
    """Open the engine's database for one transaction."""
    async with open_database(Settings.load()) as session, session.transaction() as tx:
        yield tx


def parse_run_id(text: str) -> str:
    """
    Read a run id.

    Raises:
        ConfigurationError: it is no UUID.
    """
    try:
        return str(UUID(text))
    except ValueError:
        raise ConfigurationError(
            f"{text!r} is no run id, which is a UUID. `saga-engine list` shows them;"
            " `saga-engine list --key KEY` finds one by its key."
        ) from None


def run_not_found(run_id: str) -> NotFound:
    """Say that there is no such run."""
    return NotFound(
        f"There is no run {run_id}. `saga-engine list` shows the newest; one that was just"
        " recorded in a transaction is there once a worker has taken it in."
    )
