"""The event tables as data are those that their migrations create, without the engine's."""

from saga_engine.events.event_store.consumer_tables import consumer
from saga_engine.store.migrate import upgrade
from saga_engine.store.schema import EVENT_DATABASE
from tests.kit.schema_drift import drift, unpooled_engine


async def test_the_migrations_of_events_create_these_tables(database_url: str):
    await upgrade(database_url, EVENT_DATABASE)
    connecting = unpooled_engine(database_url)
    async with connecting.connect() as connection:
        assert await connection.run_sync(lambda sync: drift(sync, [consumer.metadata])) == []
    await connecting.dispose()
