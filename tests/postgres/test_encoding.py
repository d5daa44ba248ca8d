"""Only a database with the encoding UTF8 is accepted."""

import pytest
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from saga_engine.errors import ConfigurationError
from saga_engine.postgres import encoding


def test_another_encoding_is_refused_by_name():
    encoding.require_utf8("UTF8", "db")
    with pytest.raises(ConfigurationError, match=r"database db has the encoding LATIN1"):
        encoding.require_utf8("LATIN1", "db")


@pytest.mark.parametrize("check", [encoding.check, encoding.check_from_driver])
async def test_the_encoding_of_a_database_is_checked(database_url: str, check):
    engine = create_async_engine(database_url, poolclass=NullPool)
    async with engine.connect() as connection:
        await check(connection, "db")
    admin = engine.execution_options(isolation_level="AUTOCOMMIT")
    async with admin.connect() as connection:
        await connection.exec_driver_sql(
            "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'"
        )
    latin = create_async_engine(engine.url.set(database="latin"), poolclass=NullPool)
    async with latin.connect() as connection:
        with pytest.raises(ConfigurationError, match="LATIN1"):
            await check(connection, "db")
    async with admin.connect() as connection:
        await connection.exec_driver_sql("DROP DATABASE latin")
