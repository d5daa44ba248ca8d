"""The load tests run on a PostgreSQL with fsync, as in production."""

from collections.abc import AsyncIterator

import pytest

from saga_engine.embedded.postgres import PostgresServer


@pytest.fixture(scope="session")
async def postgres() -> AsyncIterator[PostgresServer]:
    """One PostgreSQL per session, with fsync."""
    async with PostgresServer() as server:
        yield server
