import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from saga_engine.embedded.postgres import PostgresServer
from saga_engine.embedded.process import free_port
from saga_engine.participant import barrier
from saga_engine.participant.database import Database
from saga_engine.settings import Settings
from tests.participant.shop import command
from tests.proxy import Proxy, proxied


async def test_what_is_said_of_a_database_has_no_password_wherever_the_url_has_it():
    url = f"postgresql+asyncpg://me:hunter1@/shop?host=127.0.0.1:{free_port()}&password=hunter2"
    theirs = create_async_engine(url)
    for given in (url, theirs):
        database = Database(given, Settings())
        problem = await database.problem()
        assert "me@127.0.0.1" in problem
        assert "hunter" not in problem
        await database.close()
    await theirs.dispose()


async def entered(database: Database, asked):
    """What the barrier says as soon as nobody else has the command in hand."""
    while True:
        try:
            async with database.transaction() as tx:
                return await barrier.enter(tx, asked, undoes=False)
        except barrier.InHand:
            pass


async def test_who_is_cut_off_in_the_middle_of_a_command_does_not_hold_it_for_ever():
    charge = command()

    async def be_cut_off(lost: Database, proxy: Proxy, other: Database):
        async with lost.transaction() as tx:
            assert await barrier.enter(tx, charge, undoes=False) is None
            proxy.vanish()
            async with asyncio.timeout(20):
                assert await entered(other, charge) is None

    async with PostgresServer(tcp=True) as server, proxied(server.url) as proxy:
        lost = Database(proxy.url, Settings(participant_timeout=1))
        other = Database(server.url, Settings())
        await lost.prepare(create_barrier=True)
        with pytest.raises((TimeoutError, DBAPIError)):
            await be_cut_off(lost, proxy, other)
        async with asyncio.timeout(20), lost.transaction() as tx:
            assert (await barrier.enter(tx, charge, undoes=False)).case is barrier.Case.REPEATED
        await lost.close()
        await other.close()


async def test_a_handler_that_waits_in_vain_for_somebody_else_costs_no_connection(database_url):
    async def session(database):
        async with database.transaction() as tx:
            return await tx.scalar(text("SELECT pg_backend_pid()"))

    database = Database(database_url, Settings())
    first = await session(database)
    with pytest.raises(TimeoutError):
        async with database.transaction():
            raise TimeoutError
    assert await session(database) == first
    await database.close()
