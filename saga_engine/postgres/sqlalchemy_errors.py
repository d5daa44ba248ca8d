"""
What an error of the database means to us when SQLAlchemy has raised it.

SQLAlchemy keeps its adapter's error in `orig`, and that has the driver's as its cause. `sqlstate`
says what the driver's means.
"""

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from saga_engine.errors import SagaEngineError, StoreUnavailable
from saga_engine.postgres import errors


def translate_error(error: BaseException, address: str) -> SagaEngineError | None:
    """As `sqlstate.translated`; a pool without a free connection is unavailable too."""
    if isinstance(error, PoolTimeoutError):
        return StoreUnavailable(f"All connections to {address} are busy. Try again later.")
    return errors.translate_error(_driver_error(error), address)


def is_stale_connection(error: BaseException) -> bool:
    """As `sqlstate.leads_astray`."""
    return errors.is_stale_connection(_driver_error(error))


def sqlstate_of(error: BaseException) -> str:
    """As `sqlstate.code_of`."""
    return errors.sqlstate_of(_driver_error(error))


def is_unavailable(error: BaseException) -> bool:
    """As `sqlstate.is_away`; a connection that SQLAlchemy has given up is away too."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return errors.is_unavailable(_driver_error(error))


def _driver_error(error: BaseException) -> BaseException | None:
    if isinstance(error, DBAPIError):
        return (error.orig and error.orig.__cause__) or error.orig
    return None if isinstance(error, SQLAlchemyError) else error
