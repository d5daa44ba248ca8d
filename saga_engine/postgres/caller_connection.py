"""
The connection of a caller, in whose transaction the engine executes statements of its own.

The caller begins that transaction and ends it. Without one, each statement would be committed
alone, also if the caller rolls its rows back.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.errors import InvalidInput
from saga_engine.postgres import encoding
from saga_engine.postgres.errors import YOUR_CONNECTION
from saga_engine.postgres.sqlalchemy_errors import sqlstate_of, translate_error

_FAILED_TRANSACTION = "25P02"


async def check(connection: AsyncConnection) -> None:
    """
    Check that statements can be executed in a transaction of the caller.

    Raises:
        InvalidInput: it is not a connection, or commits each statement alone.
        ConfigurationError: its database cannot store every text.
    """
    given: object = connection
    if not isinstance(given, AsyncConnection):
        raise InvalidInput(
            f"The connection is a {type(given).__name__}. Give an AsyncConnection of SQLAlchemy"
            " in a transaction: that of `async with engine.begin() as connection`, or, with an"
            " AsyncSession, `await session.connection()`."
        )
    if getattr((await connection.get_raw_connection()).dbapi_connection, "autocommit", False):
        raise InvalidInput(
            "Your connection is in autocommit, so it has no transaction. Begin one on a connection"
            " without AUTOCOMMIT: `async with engine.begin() as connection`."
        )
    await encoding.check_from_driver(connection, f"of {YOUR_CONNECTION}")


@contextmanager
def translated_errors() -> Iterator[None]:
    """
    Raise errors of the driver as errors of the engine, and leave others as they are.

    Raises:
        InvalidInput: the transaction has failed before.
        StoreError: the database refused.
    """
    try:
        yield
    except SQLAlchemyError as error:
        if sqlstate_of(error) == _FAILED_TRANSACTION:
            raise InvalidInput(
                "Your transaction has failed: an earlier statement of it raised an error. Roll it"
                " back, and repeat it from its beginning. A statement that may fail needs a"
                " savepoint, `async with connection.begin_nested()`."
            ) from error
        known_error = translate_error(error, YOUR_CONNECTION)
        if known_error is None:
            raise
        raise known_error from error
