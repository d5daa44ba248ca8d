"""A private PostgreSQL with event tables, a projector as a process, and how far it is."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.processes import cpu_seconds, run_process, start_python
from saga_engine.embedded.postgres import PostgresServer

_SERVER_SETTINGS = {"shared_buffers": "128MB"}
"""The default of PostgreSQL, and not that of a server for a demo; fsync stays on."""

_POLL_SECONDS = 0.02
_TIMEOUT = 1800.0


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

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment variables for a process that uses it."""
        return {"SAGA_ENGINE_DATABASE_URL": self.url, "SAGA_ENGINE_LOG_LEVEL": "warning"}


@asynccontextmanager
async def start_event_database() -> AsyncIterator[EventDatabase]:
    """Start a private PostgreSQL with fsync and with event tables."""
    async with PostgresServer(settings=_SERVER_SETTINGS) as server:
        database = EventDatabase(server.url, server.pid)
        command = ("-m", "saga_engine", "migrate", "--events")
        process = await start_python(*command, environment=database.environment)
        if await process.wait() != 0:
            raise RuntimeError("saga-engine migrate --events failed")
        yield database


class RunningProjector:
    """
    A projector of one projection as a process, once it has the lease of that projection.

    Args:
        database: where it runs.
        projection: the name of its only projection.
        pid: the process id.
        connection: reads the position of the live tables of the projection.
    """

    def __init__(
        self, database: EventDatabase, projection: str, pid: int, connection: asyncpg.Connection
    ) -> None:
        self._pids = {"projector": pid, "postgresql": database.pid}
        self._database = database
        self._projection = projection
        self._connection = connection

    async def wait_for(self, position: int) -> None:
        """Wait until the projection has applied everything up to *position*."""
        deadline = time.monotonic() + _TIMEOUT
        while await self.position() < position:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._projection} has not reached {position}")
            await asyncio.sleep(_POLL_SECONDS)

    async def position(self) -> int:
        """Up to which position the projection has applied everything; -1 before it runs."""
        position: int | None = await self._connection.fetchval(_POSITION, self._projection)
        return -1 if position is None else position

    async def begin_rebuild(self) -> None:
        """Begin to fill other tables beside the live ones."""
        command = ("-m", "saga_engine", "projections", "rebuild", self._projection)
        process = await start_python(*command, environment=self._database.environment)
        if await process.wait() != 0:
            raise RuntimeError("saga-engine projections rebuild failed")

    async def is_rebuilding(self, position: int) -> bool:
        """Whether the other tables have not reached *position*."""
        return bool(await self._connection.fetchval(_IS_REBUILDING, self._projection, position))

    def cpu_seconds(self) -> Mapping[str, float]:
        """The processor time of the projector and of PostgreSQL until now, in seconds."""
        return {name: cpu_seconds(pid) for name, pid in self._pids.items()}


@asynccontextmanager
async def run_projector(
    database: EventDatabase, module: str, projection: str
) -> AsyncIterator[RunningProjector]:
    """Run the projector of a module with one projection; its time begins with its lease."""
    command = ("-m", "saga_engine", "projector", module, "--port", "0")
    connection = await database.connect()
    try:
        async with run_process(*command, environment=database.environment) as pid:
            running = RunningProjector(database, projection, pid, connection)
            await running.wait_for(0)
            yield running
    finally:
        await connection.close()


_POSITION = """
SELECT position FROM saga_engine.projection
WHERE name = $1 AND role = 'live' AND owner IS NOT NULL"""
_IS_REBUILDING = """
SELECT EXISTS (SELECT FROM saga_engine.projection
    WHERE name = $1 AND role = 'rebuild' AND position < $2)"""
