"""The tables as data are those that the migrations create."""

from tests.store.test_migrate import drift, engine


async def test_the_migrations_create_these_tables(migrated_url: str):
    connecting = engine(migrated_url)
    async with connecting.connect() as connection:
        assert await connection.run_sync(drift) == []
    await connecting.dispose()
