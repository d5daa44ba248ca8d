import pytest

from saga_engine import Client, Participant
from saga_engine.participant.database import ParticipantDatabase
from saga_engine.settings import Settings
from saga_engine.store.database import Database

AROUND = ["\n", "\r\n", " \t", "\n\n"]


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("name", ["database_url", "broker_url"])
def test_what_stands_around_a_url_in_a_setting_is_dropped(name, around):
    url = {"database_url": "postgresql+asyncpg://a@h/d", "broker_url": "amqp://h:5672/"}[name]
    settings = Settings(**{name: f"{around}{url}{around}"})
    assert getattr(settings, name).get_secret_value() == url


@pytest.mark.parametrize("around", AROUND)
async def test_what_stands_around_a_url_in_code_is_dropped(around, migrated_url, rabbitmq_url):
    async with Client(around + rabbitmq_url + around, settings=Settings()):
        pass
    async with Database(around + migrated_url + around, Settings()):
        pass
    database = Participant("p", database=around + migrated_url + around).database
    assert database is not None
    opened = ParticipantDatabase(database, Settings())
    await opened.prepare(create_barrier=True)
    await opened.close()
