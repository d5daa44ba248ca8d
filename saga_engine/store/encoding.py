"""
Whether a database can hold every text: only one whose encoding is UTF8 can.

Of the others SQL_ASCII checks nothing and converts nothing, and each of the rest refuses the first
character that it lacks, in the middle of a run.
"""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.errors import ConfigurationError

UTF8 = "UTF8"


def refuse(server_encoding: str, where: str) -> None:
    """
    Refuse a database of another encoding than UTF8.

    Raises:
        ConfigurationError: it is of another one.
    """
    if server_encoding != UTF8:
        raise ConfigurationError(
            f"The database {where} has the encoding {server_encoding}, which cannot hold every"
            " text. Create a database with the encoding UTF8 (CREATE DATABASE ... TEMPLATE"
            " template0 ENCODING 'UTF8') and copy the data into it with pg_dump."
        )


async def check(connection: AsyncConnection, where: str) -> None:
    """Ask a database for its encoding, and refuse it as `refuse` does."""
    refuse(await connection.scalar(_ENCODING), where)


async def check_opened(connection: AsyncConnection, where: str) -> None:
    """As `check`, without a question where the driver knows the answer: asyncpg was told it."""
    driver = (await connection.get_raw_connection()).driver_connection
    known = getattr(driver, "get_settings", None)
    found = getattr(known(), "server_encoding", None) if known else None
    if found is None:
        await check(connection, where)
    else:
        refuse(found, where)


_ENCODING = text("SELECT current_setting('server_encoding')")
