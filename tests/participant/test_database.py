import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from saga_engine.errors import ConfigurationError
from saga_engine.participant.database import ParticipantDatabase
from saga_engine.protocol.rejection import Rejected
from saga_engine.settings import Settings


async def test_a_timeout_of_another_service_closes_no_connection(database_url):
    async def session(database):
        async with database.transaction() as tx:
            return await tx.connection.scalar(text("SELECT pg_backend_pid()"))

    database = ParticipantDatabase(database_url, Settings())
    first = await session(database)
    with pytest.raises(TimeoutError):
        async with database.transaction():
            raise TimeoutError
    assert await session(database) == first
    await database.close()


@pytest.mark.parametrize("given", ["a URL", "an engine"])
async def test_a_rejected_handler_is_rolled_back_and_its_connection_is_reused(given, database_url):
    engine = create_async_engine(database_url)
    database = ParticipantDatabase(database_url if given == "a URL" else engine, Settings())

    async def reject():
        async with database.transaction() as tx:
            await tx.connection.execute(text("CREATE TABLE undone ()"))
            raise Rejected("no", "No.")

    with pytest.raises(Rejected):
        await reject()
    async with database.transaction() as tx:
        assert await tx.connection.scalar(text("SELECT to_regclass('undone')")) is None
    await database.close()
    await engine.dispose()


@pytest.mark.parametrize("where", ["role", "database", "session"])
async def test_a_database_that_may_lose_commits_is_refused_at_start(database_url, where):
    engine = create_async_engine(database_url)
    name, user = make_url(database_url).database, make_url(database_url).username
    settings, undo = {}, None
    if where == "session":
        settings = {"server_settings": {"synchronous_commit": "off"}}
    else:
        whom = f"DATABASE {name}" if where == "database" else f"ROLE {user} IN DATABASE {name}"
        async with engine.begin() as tx:
            await tx.execute(text(f"ALTER {whom} SET synchronous_commit = off"))
        undo = f"ALTER {whom} RESET synchronous_commit"
    theirs = create_async_engine(database_url, connect_args=settings)
    for given in (theirs,) if where == "session" else (theirs, database_url):
        database = ParticipantDatabase(given, Settings())
        with pytest.raises(ConfigurationError, match="synchronous_commit is off"):
            await database.prepare(create_barrier=True)
        await database.close()
    await theirs.dispose()
    if undo:
        async with engine.begin() as tx:
            await tx.execute(text(undo))
    await engine.dispose()
