"""
Whether a database can hold every text: only one whose encoding is UTF8 can.

Of the others SQL_ASCII checks nothing and converts nothing, and each of the rest refuses the first
character that it lacks, in the middle of a run.
"""

from typing import Any, Protocol

from saga_engine.errors import ConfigurationError

UTF8 = "UTF8"
_SERVER_ENCODING = "SELECT current_setting('server_encoding')"


class SqlConnection(Protocol):
    """What is asked of SQLAlchemy's `AsyncConnection`."""

    async def exec_driver_sql(self, statement: str) -> Any:
        """Execute SQL as it is."""

    async def get_raw_connection(self) -> Any:
        """Return the pool's connection."""


def require_utf8(server_encoding: str, address: str) -> None:
    """
    Refuse a database of another encoding than UTF8.

    Raises:
        ConfigurationError: it is of another one.
    """
    if server_encoding != UTF8:
        raise ConfigurationError(
            f"The database {address} has the encoding {server_encoding}, which cannot hold every"
            " text. Create a database with the encoding UTF8 (CREATE DATABASE ... TEMPLATE"
            " template0 ENCODING 'UTF8') and copy the data into it with pg_dump."
        )


async def check(connection: SqlConnection, address: str) -> None:
    """Ask a database for its encoding, and refuse it as `refuse` does."""
    require_utf8((await connection.exec_driver_sql(_SERVER_ENCODING)).scalar_one(), address)


async def check_from_driver(connection: SqlConnection, address: str) -> None:
    """As `check`, without a question where the driver knows the answer: asyncpg was told it."""
    driver = (await connection.get_raw_connection()).driver_connection
    get_settings = getattr(driver, "get_settings", None)
    server_encoding = getattr(get_settings(), "server_encoding", None) if get_settings else None
    if server_encoding is None:
        await check(connection, address)
    else:
        require_utf8(server_encoding, address)
