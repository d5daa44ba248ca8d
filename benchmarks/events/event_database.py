"""A private PostgreSQL with event tables."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.processes import start_python
from saga_engine.embedded.postgres import PostgresServer

_SERVER_SETTINGS = {"shared_buffers": "128MB"}
"""The default of PostgreSQL, and not that of a server for a demo; fsync stays on."""


@dataclass(frozen=True, slots=True)
class EventDatabase:
    """The URL of the database, and the process id of its server."""

    url: str
    pid: int

    async def connect(self) -> asyncpg.Connection:
        """Open a connection of the driver."""
        return await asyncpg.connect(self.url.replace("+asyncpg", ""))

    async def create_tables(self, metadata: MetaData) -> None:
        """Create the tables of a read model."""
        engine = create_async_engine(self.url)
        async with engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
        await engine.dispose()

    async def run_command(self, *arguments: str) -> None:
        """Run a command of saga-engine to its end."""
        command = ("-m", "saga_engine", *arguments)
        process = await start_python(*command, environment=self.environment)
        if await process.wait() != 0:
            raise RuntimeError(f"saga-engine {' '.join(arguments)} failed")

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment variables for a process that uses it."""
        return {"SAGA_ENGINE_DATABASE_URL": self.url, "SAGA_ENGINE_LOG_LEVEL": "warning"}


@asynccontextmanager
async def start_event_database() -> AsyncIterator[EventDatabase]:
    """Start a private PostgreSQL with fsync and with event tables."""
    async with PostgresServer(settings=_SERVER_SETTINGS) as server:
        database = EventDatabase(server.url, server.pid)
        await database.run_command("migrate", "--events")
        yield database
