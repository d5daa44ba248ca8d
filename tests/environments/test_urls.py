import pytest

from saga_engine import Client, Participant
from saga_engine.participant.database import ParticipantDatabase
from saga_engine.settings import Settings
from saga_engine.store.database import Database

WHITESPACE = ["\n", "\r\n", " \t", "\n\n"]


@pytest.mark.parametrize("whitespace", WHITESPACE)
@pytest.mark.parametrize("name", ["database_url", "broker_url"])
def test_whitespace_around_a_url_in_a_setting_is_stripped(name, whitespace):
    url = {"database_url": "postgresql+asyncpg://a@h/d", "broker_url": "amqp://h:5672/"}[name]
    settings = Settings(**{name: f"{whitespace}{url}{whitespace}"})
    assert getattr(settings, name).get_secret_value() == url


@pytest.mark.parametrize("whitespace", WHITESPACE)
async def test_whitespace_around_a_url_in_code_is_stripped(whitespace, migrated_url, rabbitmq_url):
    async with Client(whitespace + rabbitmq_url + whitespace, settings=Settings()):
        pass
    async with Database(whitespace + migrated_url + whitespace, Settings()):
        pass
    database = Participant("p", database=whitespace + migrated_url + whitespace).database
    assert database is not None
    opened = ParticipantDatabase(database, Settings())
    await opened.prepare(create_barrier=True)
    await opened.close()
