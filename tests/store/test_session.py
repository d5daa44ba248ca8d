"""A session does for one command what the pool does for a worker."""

import asyncio

import pytest

from saga_engine.errors import ConfigurationError, NotFound, SchemaMismatch, StoreUnavailable
from saga_engine.postgres import keepalive
from saga_engine.postgres.statement import text
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.session import Session
from tests.kit.proxy import running_proxy
from tests.kit.servers import running_postgres

PID = text("SELECT pg_backend_pid()")
COUNT = text("SELECT count(*) FROM saga_engine.audit")
WRITE = text(
    "INSERT INTO saga_engine.audit (id, operator, action, reason)"
    " VALUES (gen_random_uuid(), :operator, :operator, CAST(:reason AS text))"
)
GIVEN = {"operator": "ann", "reason": "a:b::c"}


@pytest.fixture
async def session(migrated_url):
    async with Session(migrated_url, Settings()) as opened:
        yield opened


async def written(session) -> int:
    async with session.transaction() as tx:
        number: int = (await tx.execute(COUNT)).scalar_one()
        return number


async def test_a_block_that_ends_is_committed_and_one_that_raises_is_rolled_back(session):
    async with session.transaction() as tx:
        assert (await tx.execute(WRITE, GIVEN)).rowcount == 1
    with pytest.raises(NotFound):
        await write_and_raise(session)
    assert await written(session) == 1


async def write_and_raise(session):
    async with session.transaction() as tx:
        await tx.execute(WRITE, GIVEN)
        raise NotFound("-")


@pytest.mark.parametrize("kind", [Database, Session])
async def test_pool_and_session_return_rows_alike(migrated_url, kind):
    async with kind(migrated_url, Settings()) as opened, opened.transaction() as tx:
        two = await tx.execute(text("SELECT n, 2 AS two FROM generate_series(1, 2) AS s(n)"))
        assert [tuple(row) for row in two] == [(1, 2), (2, 2)]
        one = text("SELECT CAST(:n AS int) AS n, CAST(:n AS int)::text AS same")
        row = (await tx.execute(one, {"n": 7})).one()
        assert (row.n, row.same, row[0]) == (7, "7", 7)
        none = text("SELECT 1 AS n WHERE false")
        assert (await tx.execute(none)).one_or_none() is None
        assert (await tx.execute(none)).first() is None
        assert (await tx.execute(none)).scalar() is None
        assert (await tx.execute(none)).scalar_one_or_none() is None
        assert list((await tx.execute(none)).all()) == []
        numbers = text("SELECT n, 2 FROM generate_series(1, 2) AS s(n)")
        assert list((await tx.execute(numbers)).scalars()) == [1, 2]


async def test_after_a_cancelled_statement_the_next_transaction_works(session):
    with pytest.raises(TimeoutError):
        await write_and_wait(session)
    assert await written(session) == 0


async def write_and_wait(session):
    async with asyncio.timeout(0.2), session.transaction() as tx:
        await tx.execute(WRITE, GIVEN)
        await tx.execute(text("SELECT pg_sleep(60)"))


@pytest.mark.parametrize("idle", [0.0, 3600.0])
async def test_a_lost_connection_is_replaced(session, idle, monkeypatch):
    monkeypatch.setattr(keepalive, "IDLE_PING_AFTER", idle)
    async with session.transaction() as tx:
        pid = (await tx.execute(PID)).scalar_one()
    session._driver.terminate()
    async with session.transaction() as tx:
        assert (await tx.execute(PID)).scalar_one() != pid


async def test_an_idle_connection_is_checked_before_use(monkeypatch):
    monkeypatch.setattr(keepalive, "IDLE_PING_AFTER", 0.0)
    async with running_postgres(use_tcp=True) as server, running_proxy(server.url) as proxy:
        opened = Session(proxy.url, Settings(database_connect_timeout=0.5))
        async with opened.transaction() as tx:
            pid = (await tx.execute(PID)).scalar_one()
        proxy.drop_open_connections()
        async with opened.transaction() as tx:
            assert (await tx.execute(PID)).scalar_one() != pid
        await opened._close()


@pytest.mark.parametrize("kind", [Database, Session])
async def test_a_database_without_the_schema_is_refused(database_url, kind):
    with pytest.raises(SchemaMismatch, match="has no saga-engine schema"):
        async with kind(database_url, Settings()):
            pass


@pytest.mark.parametrize("kind", [Database, Session])
async def test_a_database_that_could_lose_commits_is_refused(migrated_url, postgres, kind):
    name = migrated_url.partition("?")[0].rpartition("/")[2]
    await postgres._execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    with pytest.raises(ConfigurationError, match="synchronous_commit is off"):
        async with kind(migrated_url, Settings()):
            pass


@pytest.mark.parametrize("kind", [Database, Session])
async def test_an_unreachable_server_is_unavailable(kind):
    url = "postgresql+asyncpg://me:hunter2@127.0.0.1:1/d"
    with pytest.raises(StoreUnavailable, match=r"me@127\.0\.0\.1:1/d cannot be reached") as raised:
        async with kind(url, Settings()):
            pass
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("kind", [Database, Session])
async def test_the_session_limits_are_in_force(migrated_url, kind):
    async with (
        kind(migrated_url, Settings(database_transaction_timeout=7.0)) as opened,
        opened.transaction() as tx,
    ):
        shown = text("SELECT current_setting('statement_timeout'), current_setting('jit')")
        assert tuple((await tx.execute(shown)).one()) == ("7s", "off")
