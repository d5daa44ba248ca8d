"""A connection pool for a URL: what it connects with, and which URLs it refuses."""

import pytest
from sqlalchemy import text

from saga_engine.errors import ConfigurationError
from saga_engine.postgres.connect import create_database_engine
from saga_engine.postgres.pgbouncer import PoolerAwareConnection


async def test_the_pool_opens_connections_that_know_poolers(database_url: str):
    engine = create_database_engine(database_url)
    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert isinstance(driver, PoolerAwareConnection)
        assert not driver.uses_pooler()
        assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1
    await engine.dispose()


@pytest.mark.parametrize(
    "url", ["postgresql://host/database", "postgresql+asyncpg://host/d?sslrootcert=missing.pem"]
)
async def test_an_unusable_url_is_refused_before_connecting(url: str):
    with pytest.raises(ConfigurationError):
        create_database_engine(url)
