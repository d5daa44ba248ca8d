"""
Handling commands of aggregates: load, decide, append.

Between the load and the append another transaction may append to the stream. Then the append
refuses the version that was read, and nothing is appended. `Events.handle` loads and decides again.
`handle_in` raises, because only its caller can repeat the transaction.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.errors import SerializationFailure, StoreLockTimeout, WrongVersion
from saga_engine.events.aggregates import aggregate_rules, aggregate_stream
from saga_engine.events.aggregates.aggregate import Aggregate, require_aggregate
from saga_engine.events.aggregates.aggregate_stream import LoadedAggregate, LongReplay
from saga_engine.events.aggregates.command_time_limit import CommandTimeLimit
from saga_engine.events.aggregates.decision import decide
from saga_engine.events.event_store.append import Append, Appended, check_stream
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.event_store.stream_table import ConcurrentAppend
from saga_engine.events.event_store.transactional import (
    append_in,
    settings_from_environment,
    translated_errors,
)
from saga_engine.message_context import MessageContext
from saga_engine.postgres import caller_connection
from saga_engine.postgres.statement import Transaction
from saga_engine.settings import Settings
from saga_engine.store.database import SqlAlchemyTransaction

AppendFunction: TypeAlias = Callable[[Append], Awaitable[Appended]]

_NO_IDS = EventLog(UUID(int=0))
"""Folds get no ids of events, so the identity of the caller's database is not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handled:
    """
    What a command did.

    Args:
        stream: of the aggregate.
        version: of the stream now; 0 if it has no events.
        position: of the stream's last event; 0 if it has none. A reader that has passed it has seen
            the result of the command.
        events: that the command caused, as instances of their classes; none if nothing changed.
        state: of the aggregate after them.
    """

    stream: str
    version: int
    position: int
    events: tuple[Any, ...]
    state: Any


@dataclass(frozen=True, slots=True)
class AggregateCommand:
    """A command for one aggregate, whose declarations and stream were checked."""

    aggregate: Aggregate
    stream: str
    command: Any

    @classmethod
    def create(
        cls, aggregate: Aggregate, aggregate_id: str | int | UUID, command: Any, settings: Settings
    ) -> "AggregateCommand":
        """
        Check what a command is for.

        Raises:
            DefinitionError: the aggregate breaks a rule.
            InvalidInput: it is not an aggregate, or the id cannot be that of a stream.
        """
        require_aggregate(aggregate)
        aggregate_rules.check(aggregate)
        stream = aggregate.stream(aggregate_id)
        check_stream(stream, settings)
        return cls(aggregate, stream, command)


async def handle_in(
    connection: AsyncConnection,
    aggregate: Aggregate,
    aggregate_id: str | int | UUID,
    command: Any,
    *,
    context: MessageContext | None = None,
    settings: Settings | None = None,
) -> Handled:
    """
    Handle a command in the caller's transaction, such as that of a participant's handler.

        @shop.command("order.confirm")
        async def confirm(payload: ConfirmOrder, connection: AsyncConnection) -> None:
            await handle_in(connection, orders, payload.order_id, Confirm())

    The step of the saga and its events are committed together. A `Rejected` that the handler does
    not catch rejects the step. If this raises WrongVersion, another transaction was first and
    nothing was appended: the caller's transaction remains usable, and may be repeated.

    Args:
        connection: to a database with the event tables, in a transaction.
        aggregate: it has a function for the class of the command.
        aggregate_id: which one; it need not exist.
        command: an instance of a declared class.
        context: where the events come from; by default the message that is being handled.
        settings: limits; by default the environment's, which are read once.

    Raises:
        Rejected: the command is not allowed in that state.
        WrongVersion: another transaction has appended to the stream.
        InvalidInput: the id, the command or an event does not fit, or exceeds a limit; or the
            connection is in autocommit, or its transaction has failed.
        DecisionFailed: the function of the command failed.
        UnreadableEvent: this code cannot read the stream.
        SerializationFailure: at REPEATABLE READ or SERIALIZABLE, another transaction was first; or
            there was a deadlock, at any level: repeat the transaction.
        SchemaMismatch: the database has no event tables; run `saga-engine migrate --events`.
        StoreError: the database refused.
    """
    settings = settings or settings_from_environment()
    given = AggregateCommand.create(aggregate, aggregate_id, command, settings)

    append = partial(append_in, connection, context=context, settings=settings)
    with translated_errors():
        await caller_connection.check(connection)
        return await _handle_in(SqlAlchemyTransaction(connection), given, append, settings)


async def _handle_in(
    tx: Transaction, given: AggregateCommand, append: AppendFunction, settings: Settings
) -> Handled:
    start: LoadedAggregate | None = None
    while True:
        try:
            handled, _ = await handle_once(tx, _NO_IDS, given, append, settings, start)
        except LongReplay as replay:
            start = replay.loaded
        else:
            return handled


async def retry_conflicts(
    attempt: Callable[[LoadedAggregate | None, int], Awaitable[Handled]], attempts: int
) -> Handled:
    """
    Handle a command, again if another transaction has appended to the stream since the load.

    Args:
        attempt: loads, decides and appends in a transaction, which it rolls back if it raises; the
            load continues what an earlier attempt has replayed. Its second argument is
            how many attempts were too late before.
        attempts: how often; attempts that only replay a part of a long stream do not count.

    Raises:
        StoreLockTimeout: another transaction was first in every attempt.
    """
    start: LoadedAggregate | None = None
    conflicts = 0
    while conflicts < attempts:
        try:
            return await attempt(start, conflicts)
        except LongReplay as replay:
            start = replay.loaded
        except (WrongVersion, ConcurrentAppend, SerializationFailure):
            conflicts += 1
    raise StoreLockTimeout(
        f"In {attempts} attempts (command_attempts) other transactions appended to the stream"
        " first. Nothing was appended. Try again, or send these commands from fewer places."
    )


async def handle_once(
    tx: Transaction,
    log: EventLog,
    given: AggregateCommand,
    append: AppendFunction,
    settings: Settings,
    start: LoadedAggregate | None,
) -> tuple[Handled, Appended | None]:
    """
    Load an aggregate, decide a command and append its events, in one transaction.

    Args:
        tx: at READ COMMITTED, so that the append sees what was committed since the load.
        log: of the database.
        given: the command.
        append: appends in that transaction, or raises.
        settings: limits, and how often snapshots are written.
        start: what an earlier call has replayed, see LongReplay; None: nothing.

    Returns:
        What the command did, and what was appended; None: nothing.

    Raises:
        LongReplay: the stream has more events than one transaction replays.
        WrongVersion, ConcurrentAppend: another transaction has appended to the stream.
        Rejected, InvalidInput, DecisionFailed, UnreadableEvent: see `handle_in`.
    """
    aggregate, stream = given.aggregate, given.stream
    loaded = await aggregate_stream.load(tx, log, aggregate, stream, settings, start)
    time_limit = CommandTimeLimit(settings.mapping_timeout)
    with time_limit.interrupting():
        decision = decide(aggregate, loaded.state, given.command, time_limit)
    version, position, appended = loaded.version, loaded.position, None
    if decision.events:
        appended = await append(Append(stream, decision.events, loaded.version))
        version, position = appended.versions[stream], appended.position
        if version - loaded.snapshot_version >= settings.snapshot_interval:
            await aggregate_stream.write_snapshot(
                tx, aggregate, stream, version, decision.state_data
            )
    handled = Handled(
        stream=stream,
        version=version,
        position=position,
        events=decision.values,
        state=decision.state,
    )
    return handled, appended
