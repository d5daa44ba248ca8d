"""A pool finds out by itself, and soon, that connections lead nowhere or to the wrong server."""

import asyncio
import json
import socket
import subprocess
import sys
from contextlib import asynccontextmanager

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.embedded.postgres import PostgresServer
from saga_engine.errors import StoreUnavailable
from saga_engine.postgres import keepalive
from saga_engine.postgres.pool import ConnectionPool
from saga_engine.postgres.statement import text
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.migrate import upgrade
from tests.kit.proxy import running_proxy

WRITE = text(
    "INSERT INTO saga_engine.audit (id, operator, action, reason)"
    " VALUES (gen_random_uuid(), 'a', 'b', '')"
)
READ_ONLY = text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
OPEN = 3
SOON = 10.0  # Seconds: the promise, for which one silent connection after another is too slow.


def may_have_a_network():
    """Whether this user may make a network of its own; a container's root may not."""
    tried = subprocess.run(("unshare", "--net", "true"), check=False, capture_output=True)
    return tried.returncode == 0


@pytest.fixture(scope="module")
async def url():
    async with PostgresServer(use_tcp=True) as server:
        url = await server.create_database("pooled")
        await upgrade(url)
        yield url


@asynccontextmanager
async def pooled(url: str, **settings: float):
    """A database whose pool has OPEN connections, and the proxy that they go through."""
    async with running_proxy(url) as proxy, Database(proxy.url, Settings(**settings)) as database:
        await at_once(database)
        assert proxy.open_connections == OPEN
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
        proxy.drop_open_connections()
        with pytest.raises(StoreUnavailable, match="did not answer in time"):
            await write(database)
        await at_once(database)


async def test_who_uses_a_connection_that_has_rested_learns_nothing_of_its_death(url, monkeypatch):
    async with pooled(url) as (database, proxy):
        monkeypatch.setattr(keepalive, "IDLE_PING_AFTER", 0.0)
        proxy.drop_open_connections()
        await at_once(database)


async def test_the_kernel_asks_whether_the_host_of_a_slow_answer_is_still_there(url):
    async with pooled(url) as (database, _), database.transaction() as tx:
        raw = (await tx.connection.get_raw_connection()).driver_connection
        opened = raw._transport.get_extra_info("socket")
        assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert (
            opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == keepalive.KEEPALIVE_IDLE
        )


@pytest.mark.skipif(not may_have_a_network(), reason="`unshare --net` is not allowed here")
@pytest.mark.parametrize(("gap_s", "listens_s", "found"), [(90, 80, True), (3, 14, False)])
async def test_a_host_that_is_gone_is_found_and_one_that_was_silent_for_a_moment_is_kept(
    gap_s, listens_s, found
):
    """In a network of its own, whose only cable is pulled. By itself the kernel asks in hours."""
    program = ("unshare", "--net", sys.executable, "-m", "tests.postgres.keepalive_measurement")
    process = await asyncio.create_subprocess_exec(
        *program, str(gap_s), str(listens_s), stdout=subprocess.PIPE
    )
    async with asyncio.timeout(110):
        printed, _ = await process.communicate()
    assert json.loads(printed) is found


async def test_a_server_that_takes_no_writes_is_left_by_every_connection(url):
    async with pooled(url) as (database, proxy):
        await at_once(database, READ_ONLY)
        with pytest.raises(StoreUnavailable, match="25006"):
            await write(database)
        await at_once(database)
        assert proxy.connections == 2 * OPEN


async def lost_at_begin(connection):
    (await connection.get_raw_connection()).driver_connection.terminate()


async def refused_at_begin(connection):
    """As by a pooler that has no session left: BEGIN fails, and the connection stays open."""
    driver = (await connection.get_raw_connection()).driver_connection
    monkey = pytest.MonkeyPatch()

    async def refuse(_query, **_options):
        monkey.undo()
        raise asyncpg.TooManyConnectionsError

    monkey.setattr(driver, "execute", refuse, raising=False)


@pytest.mark.parametrize("trouble", [lost_at_begin, refused_at_begin])
async def test_a_connection_that_fails_between_two_transactions_is_used_no_more(
    url, trouble, monkeypatch
):
    connect = ConnectionPool.connect

    async def troubled(self):
        monkeypatch.undo()
        connection = await connect(self)
        await trouble(connection)
        return connection

    async with Database(url, Settings(database_pool_size=1)) as database:
        monkeypatch.setattr(ConnectionPool, "connect", troubled)
        with pytest.raises(StoreUnavailable):
            await write(database)
        await write(database)


async def test_a_connection_that_is_cut_just_as_it_answers_is_replaced(url, monkeypatch):
    """As when the process stood still while it asked."""
    rollback = AsyncConnection.rollback

    async def cut(self):
        monkeypatch.undo()
        await rollback(self)
        (await self.get_raw_connection()).driver_connection.terminate()

    async with Database(url, Settings(database_pool_size=1)) as database:
        monkeypatch.setattr(keepalive, "IDLE_PING_AFTER", 0.0)
        monkeypatch.setattr(AsyncConnection, "rollback", cut)
        await write(database)
