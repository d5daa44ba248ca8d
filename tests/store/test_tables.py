"""The tables as data are those that the migrations create."""

from tests.kit.schema_drift import drift, unpooled_engine


async def test_the_migrations_create_these_tables(migrated_url: str):
    connecting = unpooled_engine(migrated_url)
    async with connecting.connect() as connection:
        assert await connection.run_sync(drift) == []
    await connecting.dispose()
