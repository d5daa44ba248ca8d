"""
Appending in the caller's own transaction: its rows and its events are committed together.

Everything goes over the caller's connection, and nothing here commits.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import cache

from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.errors import SchemaMismatch, SerializationFailure, StoreLockTimeout
from saga_engine.events.event_store import stream_table
from saga_engine.events.event_store.append import Append, Appended, checked_events, metadata_json
from saga_engine.events.event_store.stream_table import ConcurrentAppend
from saga_engine.message_context import MessageContext, current_context
from saga_engine.postgres import caller_connection
from saga_engine.settings import Settings
from saga_engine.store.database import SqlAlchemyTransaction


async def append_in(
    connection: AsyncConnection,
    *appends: Append,
    context: MessageContext | None = None,
    settings: Settings | None = None,
) -> Appended:
    """
    Append events in the caller's transaction. Readers get them when that commits.

        async with engine.begin() as connection:
            await connection.execute(insert(orders).values(id="o-1"))
            await append_in(connection, Append("order-o-1", [Placed(total=12)], expected=NEW))

    With a session, pass `await session.connection()`. All events are appended or none: if this
    raises WrongVersion, the transaction is as it was before and remains usable. An append waits for
    another transaction that has appended to the same stream and is not committed yet. Readers of
    all events wait for a transaction that has appended, so it should end soon.

    Args:
        connection: to a database with the event tables, in a transaction.
        appends: each for another stream.
        context: where the events come from; by default the message that is being handled.
        settings: limits; by default the environment's, which are read once.

    Raises:
        InvalidInput: a name or an event cannot be stored, or exceeds a limit; or the connection is
            in autocommit, or its transaction has failed.
        WrongVersion: a stream is not what its append expected.
        SerializationFailure: at REPEATABLE READ or SERIALIZABLE, another transaction was first; or
            there was a deadlock, at any level: repeat the transaction.
        SchemaMismatch: the database has no event tables; run `saga-engine migrate --events`.
        StoreError: the database refused.
    """
    settings = settings or settings_from_environment()
    events = checked_events(appends, settings)
    metadata = metadata_json(context or current_context(), settings)

    async def attempt(conflicts: int) -> Appended:
        tx = SqlAlchemyTransaction(connection)
        async with connection.begin_nested():
            if conflicts:
                await stream_table.queue(tx, {event.stream for event in events})
            return await stream_table.append(tx, events, metadata, settings)

    with translated_errors():
        await caller_connection.check(connection)
        return await retry_concurrent(attempt, settings.event_append_attempts)


async def retry_concurrent(
    attempt: Callable[[int], Awaitable[Appended]], attempts: int
) -> Appended:
    """
    Append, again if another transaction was first. It then knows what that one appended.

    Args:
        attempt: appends, and rolls back what it has appended if it raises; its argument is
            how many attempts were too late before.
        attempts: how often.

    Raises:
        StoreLockTimeout: another transaction was first in every attempt.
    """
    for conflicts in range(attempts):
        try:
            return await attempt(conflicts)
        except (ConcurrentAppend, SerializationFailure):
            continue
    raise StoreLockTimeout(
        f"In {attempts} attempts (event_append_attempts) other transactions appended to the same"
        " stream first. Nothing was appended. Try again, or write to it from fewer places."
    )


@cache
def settings_from_environment() -> Settings:
    """Read the settings once for all calls without settings."""
    return Settings.load()


@contextmanager
def translated_errors() -> Iterator[None]:
    """As those of `caller_connection`; what is missing are event tables."""
    try:
        with caller_connection.translated_errors():
            yield
    except SchemaMismatch as error:
        raise SchemaMismatch(
            "The database of your connection lacks an event table, column or function of this"
            " version. Run `saga-engine migrate --events` on it."
        ) from error.__cause__
