"""A URL with several hosts connects to the one that accepts writes."""

from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import asyncpg
import pytest
from sqlalchemy import text

from saga_engine.embedded.postgres import PostgresServer
from saga_engine.errors import StoreUnavailable
from saga_engine.participant import database as participant
from saga_engine.postgres.url import parse_database_url
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.migrate import upgrade
from tests.kit.proxy import running_proxy
from tests.kit.servers import running_postgres

QUICK = {"database_connect_timeout": 1.0}


@asynccontextmanager
async def hosts_of(server: PostgresServer):
    """A URL of two hosts, of which the first is silent."""
    url = urlsplit(await server.create_database("many"))
    async with running_proxy(url.geturl()) as silent:
        silent.drop_all_data()
        first = urlsplit(silent.url).port
        credentials = url.netloc.rpartition("@")[0]
        hosts = f"host=127.0.0.1:{first}&host=127.0.0.1:{url.port}"
        yield f"{url.scheme}://{credentials}@{url.path}?{hosts}"


async def let_write(server: PostgresServer, value: str) -> None:
    connection = await asyncpg.connect(server.url.replace("+asyncpg", ""))
    await connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
    await connection.execute("SELECT pg_reload_conf()")
    await connection.close()


async def test_silent_and_read_only_hosts_are_skipped():
    async with running_postgres(use_tcp=True) as server, hosts_of(server) as url:
        await upgrade(f"{server.url.rpartition('/')[0]}/many")
        async with Database(url, Settings(**QUICK)) as database, database.transaction() as tx:
            assert (await tx.execute(text("SELECT 1"))).scalar() == 1
        theirs = participant.ParticipantDatabase(url, Settings(**QUICK))
        assert await theirs.find_problem() is None
        await theirs.close()
        await let_write(server, "on")
        with pytest.raises(StoreUnavailable, match="no host that takes writes"):
            async with Database(url, Settings(**QUICK)):
                pass


def test_the_address_names_all_hosts_and_no_password():
    url = "postgresql+asyncpg://me:hunter2@/db?host=one:5432&host=two:5433"
    assert parse_database_url(url).without_password == "me@one:5432,two:5433/db"
