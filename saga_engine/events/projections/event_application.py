"""
From events to what a projection does with them: folded changes, and calls of its SQL functions.

`plan` calls the pure functions, before the transaction of the batch begins. `execute` writes the
changes and calls the async functions, in the order of the events.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from sqlalchemy import Table

from saga_engine.errors import DefinitionError, UnreadableEvent
from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.handlers.event_handler import EventHandler
from saga_engine.events.handlers.poison_event import PoisonEvent, poison_of
from saga_engine.events.handlers.sql_call import CallLimit, SqlCall, execute_call
from saga_engine.events.projections.change import Change
from saga_engine.events.projections.change_batch import ChangeBatch
from saga_engine.events.projections.change_writer import write_changes
from saga_engine.events.projections.handler_source import check_table
from saga_engine.events.projections.projection import Projection
from saga_engine.events.projections.table_shape import TableProblem
from saga_engine.payload.guard import CallTimeLimit, UserCodeError, call_user_code
from saga_engine.store.database import SqlAlchemyTransaction

Step = ChangeBatch | SqlCall
"""What a plan writes or calls at once."""


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
    steps: list[Step] = field(default_factory=list)
    poison: PoisonEvent | None = None


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
    steps: list[Step],
    time_limit: CallTimeLimit,
    *,
    fold: bool,
) -> None:
    event = handler.read(recorded, time_limit)
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
    steps: Sequence[Step],
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
            await execute_call(tx, step, limit)
