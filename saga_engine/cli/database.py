"""How commands open the database, and how they read and report a run id."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from saga_engine.errors import ConfigurationError, NotFound
from saga_engine.postgres.statement import Transaction
from saga_engine.settings import Settings
from saga_engine.store.session import Session


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Session]:
    """Open the engine's database and check its schema."""
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
        ConfigurationError: it is not a UUID.
    """
    try:
        return str(UUID(text))
    except ValueError:
        raise ConfigurationError(
            f"{text!r} is not a run id, which is a UUID. `saga-engine list` shows run ids;"
            " `saga-engine list --key KEY` finds a run by its business key."
        ) from None


def run_not_found(run_id: str) -> NotFound:
    """Make the error for a run that does not exist."""
    return NotFound(
        f"There is no run {run_id}. `saga-engine list` shows the newest runs. A start that was"
        " recorded in a transaction becomes a run when a worker processes it."
    )
