"""One RabbitMQ and one PostgreSQL for all sides of a measurement, each side with its own part."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from types import MappingProxyType

import asyncpg

from benchmarks.processes import ServerUrls
from saga_engine.embedded.postgres import PostgresServer
from tests.kit.rabbitmq import RabbitMQServer

POSTGRES_SETTINGS = MappingProxyType(
    {
        "shared_buffers": "1GB",
        "max_wal_size": "8GB",  # no checkpoint is forced in the middle of one side
        "checkpoint_timeout": "15min",
        "maintenance_work_mem": "256MB",  # to fill a database with finished runs
    }
)
"""Parameters of a server that has the machine for itself; fsync and synchronous_commit are on."""


class SharedServers:
    """One RabbitMQ and one PostgreSQL; each side gets a virtual host and a database of its own."""

    def __init__(self, rabbit: RabbitMQServer, postgres: PostgresServer) -> None:
        self.rabbit = rabbit
        self.postgres = postgres
        self._numbers = count(1)

    @asynccontextmanager
    async def isolated_urls(self) -> AsyncIterator[ServerUrls]:
        """Create an empty virtual host and database, and delete them after use."""
        name = f"measured_{next(self._numbers)}"
        await self.rabbit.rabbitmqctl("add_vhost", name)
        await self.rabbit.rabbitmqctl("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
        database = await self.postgres.create_database(name)
        try:
            yield ServerUrls(
                self.rabbit.url_of(name), database, (self.rabbit.pid, self.postgres.pid)
            )
        finally:
            await self.rabbit.rabbitmqctl("delete_vhost", name)
            await self.postgres.drop_database(name)

    async def set_parameter(self, name: str, value: str) -> None:
        """Set a parameter of PostgreSQL that needs no restart, for all databases."""
        connection = await connect(self.postgres.url)
        try:
            await connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
            await connection.execute("SELECT pg_reload_conf()")
        finally:
            await connection.close()


@asynccontextmanager
async def start_shared_servers() -> AsyncIterator[SharedServers]:
    """Start a private RabbitMQ with quorum queues and a private PostgreSQL with fsync."""
    async with RabbitMQServer() as rabbit, PostgresServer(settings=POSTGRES_SETTINGS) as postgres:
        yield SharedServers(rabbit, postgres)


async def connect(database_url: str) -> asyncpg.Connection:
    """Connect to a database, for statements of the benchmark."""
    return await asyncpg.connect(database_url.replace("+asyncpg", ""))
