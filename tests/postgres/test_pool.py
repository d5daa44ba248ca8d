"""A pool finds stale connections soon: to a lost host, a silent server, or a former primary."""

import asyncio
import json
import socket
import subprocess
import sys
from contextlib import asynccontextmanager

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.errors import StoreUnavailable
from saga_engine.postgres import keepalive
from saga_engine.postgres.pool import ConnectionPool
from saga_engine.postgres.statement import text
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.migrate import upgrade
from tests.kit.proxy import running_proxy
from tests.kit.servers import running_postgres

WRITE = text(
    "INSERT INTO saga_engine.audit (id, operator, action, reason)"
    " VALUES (gen_random_uuid(), 'a', 'b', '')"
)
READ_ONLY = text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
OPEN = 3
SOON = 10.0  # Seconds: the promise, for which one silent connection after another is too slow.


def may_have_a_network():
    """Whether this user may create a network namespace; root in a container may not."""
    tried = subprocess.run(("unshare", "--net", "true"), check=False, capture_output=True)
    return tried.returncode == 0


@pytest.fixture(scope="module")
async def url():
    async with running_postgres(use_tcp=True) as server:
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


async def test_one_stale_connection_replaces_all(url):
    async with pooled(url, database_transaction_timeout=0.5) as (database, proxy):
        proxy.drop_open_connections()
        with pytest.raises(StoreUnavailable, match="did not answer in time") as timed_out:
            await write(database)
        assert "transaction 0.5 s (SAGA_ENGINE_DATABASE_TRANSACTION_TIMEOUT)" in str(
            timed_out.value
        )
        await at_once(database)


async def test_a_dead_idle_connection_is_replaced_before_use(url, monkeypatch):
    async with pooled(url) as (database, proxy):
        monkeypatch.setattr(keepalive, "IDLE_PING_AFTER", 0.0)
        proxy.drop_open_connections()
        await at_once(database)


async def test_the_kernel_probes_the_host_of_a_slow_answer(url):
    async with pooled(url) as (database, _), database.transaction() as tx:
        raw = (await tx.connection.get_raw_connection()).driver_connection
        opened = raw._transport.get_extra_info("socket")
        assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert (
            opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == keepalive.KEEPALIVE_IDLE
        )


@pytest.mark.long
@pytest.mark.skipif(not may_have_a_network(), reason="`unshare --net` is not allowed here")
@pytest.mark.parametrize(("gap_s", "listens_s", "found"), [(90, 80, True), (3, 14, False)])
async def test_a_lost_host_is_found_and_a_short_outage_survived(gap_s, listens_s, found):
    """
    In a network namespace whose only link goes down. By default the kernel probes after hours.
    """
    program = ("unshare", "--net", sys.executable, "-m", "tests.postgres.keepalive_measurement")
    process = await asyncio.create_subprocess_exec(
        *program, str(gap_s), str(listens_s), stdout=subprocess.PIPE
    )
    async with asyncio.timeout(110):
        printed, _ = await process.communicate()
    assert json.loads(printed) is found


async def test_a_read_only_server_is_left_by_every_connection(url):
    async with pooled(url) as (database, proxy):
        await at_once(database, READ_ONLY)
        with pytest.raises(StoreUnavailable, match="25006"):
            await write(database)
        await at_once(database)
        assert proxy.connections == 2 * OPEN


async def lost_at_begin(connection):
    (await connection.get_raw_connection()).driver_connection.terminate()


async def refused_at_begin(connection):
    """As behind a pooler without a free session: BEGIN fails, and the connection stays open."""
    driver = (await connection.get_raw_connection()).driver_connection
    monkey = pytest.MonkeyPatch()

    async def refuse(_query, **_options):
        monkey.undo()
        raise asyncpg.TooManyConnectionsError

    monkey.setattr(driver, "execute", refuse, raising=False)


@pytest.mark.parametrize("trouble", [lost_at_begin, refused_at_begin])
async def test_a_connection_that_fails_between_transactions_is_not_used_again(
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


async def test_a_connection_that_is_terminated_as_it_answers_is_replaced(url, monkeypatch):
    """As when the process was stopped while it waited."""
    rollback = AsyncConnection.rollback

    async def cut(self):
        monkeypatch.undo()
        await rollback(self)
        (await self.get_raw_connection()).driver_connection.terminate()

    async with Database(url, Settings(database_pool_size=1)) as database:
        monkeypatch.setattr(keepalive, "IDLE_PING_AFTER", 0.0)
        monkeypatch.setattr(AsyncConnection, "rollback", cut)
        await write(database)
