"""A pool finds out by itself, and soon, that connections lead nowhere or to the wrong server."""

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text

from saga_engine.embedded.postgres import PostgresServer
from saga_engine.errors import StoreUnavailable
from saga_engine.settings import Settings
from saga_engine.store import pool
from saga_engine.store.database import Database
from saga_engine.store.migrate import upgrade
from tests.proxy import proxied

WRITE = text(
    "INSERT INTO saga_engine.audit (id, by, action, reason)"
    " VALUES (gen_random_uuid(), 'a', 'b', '')"
)
READ_ONLY = text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
OPEN = 3
SOON = 10.0  # Seconds: the promise, for which one silent connection after another is too slow.


@pytest.fixture(scope="module")
async def url():
    async with PostgresServer(tcp=True) as server:
        url = await server.create_database("pooled")
        await upgrade(url)
        yield url


@asynccontextmanager
async def pooled(url: str, **settings: float):
    """A database whose pool has OPEN connections, and the proxy that they go through."""
    async with proxied(url) as proxy, Database(proxy.url, Settings(**settings)) as database:
        await at_once(database)
        assert proxy.open == OPEN
        yield database, proxy


async def at_once(database: Database, statement=WRITE) -> None:
    """Use as many connections as there are."""
    barrier = asyncio.Barrier(OPEN)

    async def use() -> None:
        async with database.transaction() as tx:
            await tx.execute(statement)
            await barrier.wait()

    async with asyncio.timeout(SOON), asyncio.TaskGroup() as group:
        for _ in range(OPEN):
            group.create_task(use())


async def write(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.execute(WRITE)


async def test_one_silent_connection_is_enough_to_replace_them_all(url):
    async with pooled(url, database_timeout=0.5) as (database, proxy):
        proxy.vanish()
        with pytest.raises(StoreUnavailable, match="did not answer in time"):
            await write(database)
        await at_once(database)


async def test_who_uses_a_connection_that_has_rested_learns_nothing_of_its_death(url, monkeypatch):
    async with pooled(url, database_connect_timeout=1) as (database, proxy):
        monkeypatch.setattr(pool, "RESTED", 0.0)
        proxy.vanish()
        await at_once(database)


async def test_the_kernel_asks_whether_the_host_of_a_slow_answer_is_still_there(url):
    async with pooled(url, database_timeout=3) as (database, _), database.transaction() as tx:
        raw = (await tx.get_raw_connection()).driver_connection
        opened = raw._transport.get_extra_info("socket")
        kept = opened.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        idle = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
        silent = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert (kept, idle, silent) == (1, pool.IDLE, 3000)


async def test_a_server_that_takes_no_writes_is_left_by_every_connection(url):
    async with pooled(url) as (database, proxy):
        await at_once(database, READ_ONLY)
        with pytest.raises(StoreUnavailable, match="25006"):
            await write(database)
        await at_once(database)
        assert proxy.connections == 2 * OPEN
