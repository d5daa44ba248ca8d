"""
Whether a database can store every text: only one with the encoding UTF8 can.

SQL_ASCII checks and converts nothing. Every other encoding refuses the first character that it
lacks, in the middle of a run.
"""

from typing import Any, Protocol

from saga_engine.errors import ConfigurationError

UTF8 = "UTF8"
_SERVER_ENCODING = "SELECT current_setting('server_encoding')"


class SqlConnection(Protocol):
    """The methods of SQLAlchemy's `AsyncConnection` that are used here."""

    async def exec_driver_sql(self, statement: str) -> Any:
        """Execute SQL unchanged."""

    async def get_raw_connection(self) -> Any:
        """Return the pool's connection."""


def require_utf8(server_encoding: str, address: str) -> None:
    """
    Check that the encoding of a database is UTF8.

    Raises:
        ConfigurationError: it is another one.
    """
    if server_encoding != UTF8:
        raise ConfigurationError(
            f"The database {address} has the encoding {server_encoding}, which cannot hold every"
            " text. Create a database with the encoding UTF8 (CREATE DATABASE ... TEMPLATE"
            " template0 ENCODING 'UTF8') and copy the data into it with pg_dump."
        )


async def check(connection: SqlConnection, address: str) -> None:
    """Query the encoding of a database, and check it with `require_utf8`."""
    require_utf8((await connection.exec_driver_sql(_SERVER_ENCODING)).scalar_one(), address)


async def check_from_driver(connection: SqlConnection, address: str) -> None:
    """As `check`, without a query if the driver knows the encoding, as asyncpg does."""
    driver = (await connection.get_raw_connection()).driver_connection
    get_settings = getattr(driver, "get_settings", None)
    server_encoding = getattr(get_settings(), "server_encoding", None) if get_settings else None
    if server_encoding is None:
        await check(connection, address)
    else:
        require_utf8(server_encoding, address)
