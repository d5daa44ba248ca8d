"""
Errors that SQLAlchemy has raised, as errors of the engine.

SQLAlchemy keeps its adapter's error in `orig`, whose cause is the driver's error. `errors` knows
what that one means.
"""

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from saga_engine.errors import SagaEngineError, StoreUnavailable
from saga_engine.postgres import errors


def translate_error(error: BaseException, address: str) -> SagaEngineError | None:
    """As `errors.translate_error`; a pool without a free connection is unavailable too."""
    if isinstance(error, PoolTimeoutError):
        return StoreUnavailable(f"All connections to {address} are busy. Try again later.")
    return errors.translate_error(_driver_error(error), address)


def is_stale_connection(error: BaseException) -> bool:
    """As `errors.is_stale_connection`."""
    return errors.is_stale_connection(_driver_error(error))


def is_stale_statement(error: BaseException | None) -> bool:
    """As `errors.is_stale_statement`; None: it is not."""
    driver_error = None if error is None else _driver_error(error)
    return driver_error is not None and errors.is_stale_statement(driver_error)


def sqlstate_of(error: BaseException) -> str:
    """As `errors.sqlstate_of`."""
    return errors.sqlstate_of(_driver_error(error))


def missing_name_of(error: BaseException) -> str:
    """As `errors.missing_name_of`."""
    return errors.missing_name_of(_driver_error(error))


def is_unavailable(error: BaseException) -> bool:
    """As `errors.is_unavailable`; also when SQLAlchemy has invalidated the connection."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return errors.is_unavailable(_driver_error(error))


def is_of_the_server(error: BaseException) -> bool:
    """As `errors.is_of_the_server`; also when SQLAlchemy has invalidated the connection."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return errors.is_of_the_server(_driver_error(error))


def _driver_error(error: BaseException) -> BaseException | None:
    if isinstance(error, DBAPIError):
        return (error.orig and error.orig.__cause__) or error.orig
    return None if isinstance(error, SQLAlchemyError) else error
