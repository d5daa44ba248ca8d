import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from saga_engine import start_in_transaction
from saga_engine.errors import ConfigurationError
from saga_engine.participant.database import ParticipantDatabase
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.migrate import outdated_reason, upgrade
from tests.environments.order_saga import order
from tests.kit.command_line import saga_engine
from tests.kit.place_order import SAGAS

WORDS = "has the encoding {}, which cannot hold every text"


@pytest.fixture(params=["LATIN1", "SQL_ASCII"])
async def other(request, postgres):
    """The URL of a database in another encoding, and the words of its error."""
    name = f"other_{request.param.lower()}"
    engine = create_async_engine(postgres.url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(
            text(
                f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{request.param}'"
                " LC_COLLATE 'C' LC_CTYPE 'C'"
            )
        )
    yield postgres.url.replace("/postgres?", f"/{name}?"), WORDS.format(request.param)
    async with engine.connect() as connection:
        await connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    await engine.dispose()


async def test_a_database_in_another_encoding_is_not_migrated(other):
    url, words = other
    with pytest.raises(ConfigurationError, match=words):
        await upgrade(url)
    with pytest.raises(ConfigurationError, match=words):
        await outdated_reason(url)


async def test_a_database_in_another_encoding_is_refused_at_the_start(other, rabbitmq_url):
    url, words = other
    with pytest.raises(ConfigurationError, match=words):
        async with Database(url, Settings()):
            pass
    for arguments in (("list",), ("worker", SAGAS, "--port", "0"), ("migrate",)):
        ran = await saga_engine(*arguments, database_url=url, broker_url=rabbitmq_url)
        assert (ran.exit_code, words in ran.err) == (2, True), (arguments, ran)


@pytest.mark.parametrize("source", ["a URL", "an engine"])
async def test_a_participants_database_in_another_encoding_is_refused(source, other):
    url, words = other
    engine = create_async_engine(url)
    database = ParticipantDatabase(url if source == "a URL" else engine, Settings())
    with pytest.raises(ConfigurationError, match=words):
        await database.prepare(create_barrier=True)
    await database.close()
    await engine.dispose()


async def test_no_start_is_recorded_in_a_database_in_another_encoding(other):
    url, words = other
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        with pytest.raises(ConfigurationError, match=words):
            await start_in_transaction(connection, order, {"order_id": "a"})
    await engine.dispose()
