"""A call of an async function: its time limit, and what it may not do with the transaction."""

import asyncio
from dataclasses import dataclass
from typing import Any

from saga_engine.errors import StoreUnavailable
from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.handlers.event_handler import EventHandler
from saga_engine.events.handlers.handler_connection import HandlerConnection, transaction_ended
from saga_engine.payload.guard import class_name
from saga_engine.postgres.sqlalchemy_errors import is_of_the_server, translate_error
from saga_engine.store.database import SqlAlchemyTransaction


@dataclass(frozen=True, slots=True)
class SqlCall:
    """A call of an async function."""

    handler: EventHandler
    event: Any
    recorded: Recorded


@dataclass(slots=True)
class CallLimit:
    """
    How long each async function may take.

    Args:
        seconds: the limit.
        overdue: the last call that took longer. It is noted here because such a call can end the
            transaction, whose error does not name it.
    """

    seconds: float
    overdue: SqlCall | None = None

    def forget(self) -> None:
        """Begin again."""
        self.overdue = None


class SqlHandlerError(Exception):
    """
    An async function failed; `__cause__` is what it raised.

    Args:
        problem: what the function did, in a sentence.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


class TransactionEnded(Exception):
    """An async function has ended the transaction of the batch at the event `recorded`."""

    def __init__(self, recorded: Recorded) -> None:
        super().__init__(recorded.position)
        self.recorded = recorded


async def execute_call(tx: SqlAlchemyTransaction, call: SqlCall, limit: CallLimit | None) -> None:
    """
    Call an async function with the connection of a transaction.

    Args:
        tx: the transaction of its event.
        call: which function, and for which event.
        limit: how long it may take; None: as long as it wants.

    Raises:
        SqlHandlerError: it failed.
        TransactionEnded: it has ended the transaction.
    """
    transaction = tx.connection.get_transaction() or await tx.connection.begin()
    timeout = asyncio.timeout(limit.seconds if limit else None)
    clock = asyncio.get_running_loop().time
    started_at = clock()
    try:
        connection = HandlerConnection.create(tx.connection, call.handler.call)
        async with timeout:
            with tx.kept_open(lambda: transaction_ended(call.handler.call)):
                await call.handler.function(call.event, call.recorded, connection)
    except BaseException as error:
        task = asyncio.current_task()
        is_cancelled = isinstance(error, asyncio.CancelledError) and task and task.cancelling()
        if is_cancelled or isinstance(error, KeyboardInterrupt):
            raise  # else the function has cancelled what it awaited itself, or raised that
        if limit and timeout.expired():
            raise SqlHandlerError(did_not_return(call, limit)) from error
        raise SqlHandlerError(
            f"{call.handler.call.function} raised {class_name(error)}."
        ) from error
    finally:
        if limit and clock() - started_at >= limit.seconds:  # it can have blocked the event loop
            limit.overdue = call
        if not (tx.is_lost or (tx.is_open and transaction.is_active)):
            raise TransactionEnded(call.recorded) from transaction_ended(call.handler.call)


def raise_if_unavailable(error: Exception) -> None:
    """
    Raise an error that says nothing about the events: the database, a lock, another transaction.

    Raises:
        StoreUnavailable: the batch can be tried again.
    """
    cause = error.__cause__ if isinstance(error, SqlHandlerError) and error.__cause__ else error
    if isinstance(cause, StoreUnavailable):
        raise cause
    if isinstance(error, SqlHandlerError) and not is_of_the_server(cause):
        return
    translated = translate_error(cause, "the database")
    if isinstance(translated, StoreUnavailable):
        raise translated from None


def did_not_return(call: SqlCall, limit: CallLimit) -> str:
    """Say that a function took longer than the limit."""
    return f"{call.handler.call.function} did not return within {limit.seconds:g} s."
