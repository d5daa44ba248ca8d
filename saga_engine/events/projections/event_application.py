"""
From events to what a projection does with them: folded changes, and calls of its SQL functions.

`plan` calls the pure functions, before the transaction of the batch begins. `execute` writes the
changes and calls the async functions, in the order of the events.
"""

import asyncio
import traceback
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from sqlalchemy import Table

from saga_engine.errors import (
    DefinitionError,
    SagaEngineError,
    SchemaMismatch,
    StoreRefused,
    UnreadableEvent,
)
from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.projections.change import Change
from saga_engine.events.projections.change_batch import ChangeBatch
from saga_engine.events.projections.change_writer import write_changes
from saga_engine.events.projections.handler_connection import HandlerConnection, transaction_ended
from saga_engine.events.projections.handler_source import check_table
from saga_engine.events.projections.projection import EventHandler, Projection
from saga_engine.events.projections.projection_failures import PoisonEvent
from saga_engine.events.projections.table_shape import TableProblem
from saga_engine.payload.guard import (
    CallTimeLimit,
    UserCodeError,
    call_user_code,
    class_name,
)
from saga_engine.postgres.sqlalchemy_errors import missing_name_of, sqlstate_of, translate_error
from saga_engine.store.database import SqlAlchemyTransaction

_PACKAGE = __file__.rpartition("/events/")[0] + "/"


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


@dataclass(slots=True)
class Plan:
    """
    What applies some events.

    Args:
        events: those that are applied, in order.
        steps: what is written and called for them, in order.
        poison: the event after them whose function or data failed; None: there was none.
    """

    events: list[Recorded] = field(default_factory=list)
    steps: list[ChangeBatch | SqlCall] = field(default_factory=list)
    poison: PoisonEvent | None = None


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


def plan(
    projection: Projection,
    events: Sequence[Recorded],
    parked: AbstractSet[str],
    time_limit: CallTimeLimit,
    *,
    fold: bool = True,
) -> Plan:
    """
    Plan what applies *events*, up to the first that cannot be read or mapped to changes.

    Args:
        projection: whose functions are called.
        events: in the order of their positions.
        parked: streams whose events are left out.
        time_limit: interrupts each call of the author's code.
        fold: whether changes of a row become one; else each is written in its turn.
    """
    made = Plan()
    for recorded in events:
        handler = projection.handlers.get(recorded.type)
        if handler is None or recorded.stream in parked:
            continue
        try:
            _plan_event(projection, handler, recorded, made.steps, time_limit, fold=fold)
        except (DefinitionError, UnreadableEvent, UserCodeError) as error:
            made.poison = poison_of(recorded, error)
            return made
        made.events.append(recorded)
    return made


def _plan_event(
    projection: Projection,
    handler: EventHandler,
    recorded: Recorded,
    steps: list[ChangeBatch | SqlCall],
    time_limit: CallTimeLimit,
    *,
    fold: bool,
) -> None:
    event_type = handler.event_type
    if event_type is None:
        recorded.require_exact_numbers()
    event = recorded.data if event_type is None else event_type.read(recorded, time_limit)
    if handler.is_sql:
        steps.append(SqlCall(handler, event, recorded))
        return
    result = call_user_code(time_limit, handler.call, _call_pure, handler, event, recorded)
    # All are checked before the first is folded: a batch has all changes of an event, or none.
    for change in _changes_in(projection, handler, result):
        last = steps[-1] if steps else None
        if not fold or not isinstance(last, ChangeBatch) or not last.fold(change):
            batch = ChangeBatch()
            batch.fold(change)
            steps.append(batch)


def _call_pure(handler: EventHandler, event: Any, recorded: Recorded) -> Any:
    try:
        return handler.function(event, recorded)
    except DefinitionError as error:  # of `upsert` and the others; its text has no values
        return error


def _changes_in(projection: Projection, handler: EventHandler, result: Any) -> Sequence[Change]:
    """
    What a pure function has returned, as a sequence.

    Raises:
        DefinitionError: it is not what the function is annotated with, or a change of a table of
            another projection.
    """
    if isinstance(result, DefinitionError):
        raise result
    if result is None and handler.result is not None:  # a forgotten `return` would lose the event
        raise DefinitionError(
            f"{handler.call.function} returned None, but is annotated {handler.result}.",
            location=handler.call.source_location,
            fix=f"Return the change, or annotate {handler.result} | None.",
        )
    changes = () if result is None else result if isinstance(result, list | tuple) else (result,)
    for change in changes:
        if not isinstance(change, Change):
            raise DefinitionError(
                f"{handler.call.function} returned a {type(change).__name__}.",
                location=handler.call.source_location,
                fix="Return what upsert, put, add, insert or delete return, in a list if several.",
            )
        try:
            check_table(change.table, projection.tables)
        except TableProblem as problem:
            location = handler.call.source_location
            raise DefinitionError(str(problem), location=location, fix=problem.fix) from None
    return changes


async def execute(
    tx: SqlAlchemyTransaction,
    projection: Projection,
    steps: Sequence[ChangeBatch | SqlCall],
    shadows: Mapping[Table, Table] = MappingProxyType({}),
    limit: CallLimit | None = None,
) -> None:
    """
    Write the changes and call the async functions of a plan, in order.

    Args:
        tx: the transaction of the batch.
        projection: whose plan it is.
        steps: of the plan.
        shadows: what is written instead of each of its tables; empty: they are.
        limit: how long each async function may take; None: as long as it wants.

    Raises:
        SqlHandlerError: a function failed.
        TransactionEnded: a function has ended the transaction.
        Exception: of the driver; PostgreSQL refuses a change, or is unavailable.
    """
    for step in steps:
        if isinstance(step, ChangeBatch):
            await write_changes(tx, step, projection.tables, shadows)
        else:
            await _call_sql(tx, step, limit)


async def _call_sql(tx: SqlAlchemyTransaction, call: SqlCall, limit: CallLimit | None) -> None:
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
            raise SqlHandlerError(_did_not_return(call, limit)) from error
        raise SqlHandlerError(
            f"{call.handler.call.function} raised {class_name(error)}."
        ) from error
    finally:
        if limit and clock() - started_at >= limit.seconds:  # it can have blocked the event loop
            limit.overdue = call
        if not (tx.is_lost or (tx.is_open and transaction.is_active)):
            raise TransactionEnded(call.recorded) from transaction_ended(call.handler.call)


def overdue_poison(call: SqlCall, limit: CallLimit) -> PoisonEvent:
    """Blame an event whose function took longer than the limit."""
    return PoisonEvent(recorded=call.recorded, error=_did_not_return(call, limit), trace="")


def _did_not_return(call: SqlCall, limit: CallLimit) -> str:
    return f"{call.handler.call.function} did not return within {limit.seconds:g} s."


def poison_of(recorded: Recorded, error: BaseException) -> PoisonEvent:
    """Describe why an event cannot be applied, without values of the event."""
    wrapped = isinstance(error, SqlHandlerError | TransactionEnded)
    cause = error.__cause__ if wrapped and error.__cause__ else error
    known = cause if isinstance(cause, SagaEngineError) else translate_error(cause, "the database")
    if isinstance(known, SchemaMismatch):  # of the projection's tables, not of the event tables
        problem = _missing(recorded, error, cause)
    else:
        problem = _problem(error, cause, known)
    return PoisonEvent(
        recorded=recorded,
        error=problem,
        trace=_trace(cause),
        lacks_schema=isinstance(known, SchemaMismatch),
    )


def _missing(recorded: Recorded, error: BaseException, cause: BaseException) -> str:
    name = missing_name_of(cause)
    if isinstance(error, SqlHandlerError) and any(each in name for each in _values(recorded)):
        name = ""  # the function may have made it of the event
    return (
        f"The database lacks {name or 'a table, column or function'} that the projection uses"
        f" (SQLSTATE {sqlstate_of(cause)}). Create it as the projection declares it, then retry."
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
