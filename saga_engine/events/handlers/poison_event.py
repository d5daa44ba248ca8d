"""An event that a function can never take, and why, without values of the event."""

import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from saga_engine.errors import SagaEngineError, SchemaMismatch, StoreRefused
from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.handlers.sql_call import (
    CallLimit,
    SqlCall,
    SqlHandlerError,
    TransactionEnded,
    did_not_return,
)
from saga_engine.payload.guard import UserCodeError, class_name
from saga_engine.postgres.sqlalchemy_errors import missing_name_of, sqlstate_of, translate_error

_PACKAGE = __file__.rpartition("/events/")[0] + "/"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoisonEvent:
    """
    An event that can never be applied.

    Args:
        recorded: the event.
        error: what is wrong, in a sentence and without values of the event.
        trace: the lines of code that raised, the outermost first; empty when none did.
        lacks_schema: whether a table or column is missing, which is the fault of no event.
    """

    recorded: Recorded
    error: str
    trace: str
    lacks_schema: bool = False


def overdue_poison(call: SqlCall, limit: CallLimit) -> PoisonEvent:
    """Blame an event whose function took longer than the limit."""
    return PoisonEvent(recorded=call.recorded, error=did_not_return(call, limit), trace="")


def poison_of(recorded: Recorded, error: BaseException, reader: str = "projection") -> PoisonEvent:
    """Describe why an event cannot be applied by a reader, without values of the event."""
    wrapped = isinstance(error, SqlHandlerError | TransactionEnded)
    cause = error.__cause__ if wrapped and error.__cause__ else error
    known = cause if isinstance(cause, SagaEngineError) else translate_error(cause, "the database")
    if isinstance(known, SchemaMismatch):  # of the projection's tables, not of the event tables
        problem = _missing(recorded, error, cause, reader)
    else:
        problem = _problem(error, cause, known)
    return PoisonEvent(
        recorded=recorded,
        error=problem,
        trace=_trace(cause),
        lacks_schema=isinstance(known, SchemaMismatch),
    )


def _missing(recorded: Recorded, error: BaseException, cause: BaseException, reader: str) -> str:
    name = missing_name_of(cause)
    if isinstance(error, SqlHandlerError) and any(each in name for each in _values(recorded)):
        name = ""  # the function may have made it of the event
    return (
        f"The database lacks {name or 'a table, column or function'} that the {reader} uses"
        f" (SQLSTATE {sqlstate_of(cause)}). Create it as the {reader} expects it, then retry."
    )


def _values(recorded: Recorded) -> Iterator[str]:
    rest: list[Any] = [recorded.stream, recorded.data]
    while rest:
        value = rest.pop()
        if isinstance(value, dict | list):
            rest += value.values() if isinstance(value, dict) else value
        elif value not in (None, ""):
            yield str(value)


def _problem(error: BaseException, cause: BaseException, known: SagaEngineError | None) -> str:
    sqlstate = sqlstate_of(cause)
    if sqlstate == "25P02":
        return (
            "A function has caught an error of PostgreSQL, which refuses every statement after it"
            " (SQLSTATE 25P02). Put SQL that may fail into `async with connection.begin_nested():`."
        )
    is_of_database = sqlstate or known is cause or isinstance(known, StoreRefused)
    if known is not None and is_of_database:
        return str(known)
    if isinstance(error, SqlHandlerError):
        return error.problem
    if isinstance(cause, UserCodeError):
        return f"{cause.call.function} {cause.text}{cause.detail}."
    return f"Writing its changes raised {class_name(cause)}."


def _trace(error: BaseException) -> str:
    """
    Name the author's lines that raised, also where another error was made of theirs.

    The texts of errors are left out, because they may have values.
    """
    frames = dict.fromkeys(
        f"{frame.filename}:{frame.lineno} in {frame.name}"
        for each in _chain(error)
        for frame in traceback.extract_tb(each.__traceback__)
        if not frame.filename.startswith(_PACKAGE) and "/site-packages/" not in frame.filename
    )
    return "\n".join(frames)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__context__ if error.__cause__ is None else error.__cause__
