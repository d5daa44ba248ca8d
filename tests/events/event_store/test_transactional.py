"""Appending in the transaction of the user's code."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from saga_engine.errors import (
    InvalidInput,
    SchemaMismatch,
    SerializationFailure,
    StoreLockTimeout,
    WrongVersion,
)
from saga_engine.events import ANY, NEW, Append, Events, MessageContext, append_in
from saga_engine.settings import Settings
from tests.kit.event_database import connected, placed


async def streams(events: Events) -> list[str]:
    return [event.stream async for event in events.read_all()]


async def test_events_are_committed_with_the_rows_of_the_caller(
    events: Events, user_engine: AsyncEngine
):
    async with user_engine.begin() as connection:
        await connection.execute(text("CREATE TABLE orders (id text)"))
        done = await append_in(
            connection,
            Append("order-1", [placed()], NEW),
            context=MessageContext(actor="mara"),
        )
        assert await streams(events) == []
    [event] = [event async for event in events.read_all()]
    assert (event.position, event.actor) == (done.position, "mara")
    async with user_engine.connect() as connection:
        await append_in(connection, Append("order-2", [placed()]))
        await connection.rollback()
    assert await streams(events) == ["order-1"]


async def test_a_wrong_version_leaves_the_transaction_usable_and_appends_nothing(
    events: Events, user_engine: AsyncEngine
):
    await events.append(Append("order-1", [placed()]))
    settings = Settings(event_batch_size=2)
    async with user_engine.begin() as connection:
        await append_in(connection, Append("order-2", [placed()]))
        with pytest.raises(WrongVersion, match="'order-1' is at version 1"):
            await append_in(
                connection,
                Append("order-3", [placed()] * 3),
                Append("order-1", [placed()], NEW),
                settings=settings,
            )
        await append_in(connection, Append("order-1", [placed()], 1))
    assert await streams(events) == ["order-1", "order-2", "order-1"]


async def test_an_append_that_another_one_overtakes_leaves_the_transaction_usable(
    events: Events, user_engine: AsyncEngine, event_url: str
):
    """The other one is not committed when the append begins, so the append waits for it."""
    for expected in (NEW, ANY):
        stream = f"order-{expected.value}"
        async with user_engine.begin() as mine, user_engine.connect() as other:
            await append_in(other, Append(stream, [placed(1)]))
            async with asyncio.TaskGroup() as group:
                task = group.create_task(tried_append(mine, Append(stream, [placed(2)], expected)))
                await wait_for_a_lock(event_url)
                await other.commit()
            await append_in(mine, Append(f"{stream}-after", [placed()]))
        assert task.result() == (1 if expected is NEW else 2)
        assert (await streams(events))[-1] == f"{stream}-after"


async def tried_append(connection, append: Append) -> int:
    """Append, and return the version of the stream."""
    try:
        return (await append_in(connection, append)).versions[append.stream]
    except WrongVersion as error:
        return error.actual


async def wait_for_a_lock(url: str) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    async with connected(url) as observer, asyncio.timeout(20):
        while not await observer.fetchval(waiting):
            pass


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("expected", [NEW, ANY])
async def test_above_read_committed_a_conflict_is_a_serialization_failure(
    events: Events, user_engine: AsyncEngine, level: str, expected
):
    engine = user_engine.execution_options(isolation_level=level)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT count(*) FROM saga_engine.stream_event"))
        await events.append(Append("order-1", [placed()]))
        with pytest.raises(SerializationFailure, match=r"40001.*repeat it from its beginning"):
            await append_in(connection, Append("order-1", [placed()], expected))
        await connection.rollback()
        await append_in(connection, Append("order-1", [placed()], 1))
        await connection.commit()
    assert await streams(events) == ["order-1", "order-1"]


async def test_a_deadlock_of_two_transactions_is_a_serialization_failure(
    events: Events, user_engine: AsyncEngine, event_url: str
):
    """Each waits for the stream that the other one has appended to."""
    async with user_engine.connect() as mine, user_engine.connect() as other:
        await append_in(mine, Append("order-1", [placed()]))
        await append_in(other, Append("order-2", [placed()]))
        async with asyncio.TaskGroup() as group:
            first = group.create_task(undone(mine, Append("order-2", [placed()])))
            second = group.create_task(undone(other, Append("order-1", [placed()])))
    [message] = [found for found in (first.result(), second.result()) if found]
    assert "40P01" in message
    assert "repeat it from its beginning" in message


async def undone(connection: AsyncConnection, append: Append) -> str:
    """Append and commit; the text of the error if that is undone."""
    try:
        await append_in(connection, append)
    except SerializationFailure as error:
        await connection.rollback()
        return str(error)
    await connection.commit()
    return ""


async def test_an_append_that_is_refused_before_it_is_sent_leaves_the_transaction_usable(
    events: Events, user_engine: AsyncEngine
):
    async with user_engine.begin() as connection:
        with pytest.raises(InvalidInput):
            await append_in(connection, Append("order", [placed()]))
        await append_in(connection, Append("order-1", [placed()]))
    assert await streams(events) == ["order-1"]


async def test_a_stream_that_another_transaction_holds_is_named(
    events: Events, user_engine: AsyncEngine
):
    async with user_engine.begin() as mine, user_engine.connect() as other:
        await append_in(other, Append("order-1", [placed()]))
        await mine.execute(text("SET LOCAL lock_timeout = '50ms'"))
        with pytest.raises(StoreLockTimeout, match=r"stream 'order-1'.*End that transaction"):
            await append_in(mine, Append("order-1", [placed()]))
        await append_in(mine, Append("order-2", [placed()]))
    assert await streams(events) == ["order-2"]


@pytest.mark.parametrize("reads_first", [False, True])
async def test_a_connection_without_a_transaction_is_refused(
    events: Events, user_engine: AsyncEngine, reads_first: bool
):
    """Nothing may be committed that the caller cannot roll back."""
    engine = user_engine.execution_options(isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        if reads_first:
            await connection.execute(text("SELECT 1"))
        with pytest.raises(InvalidInput, match="Your connection is in autocommit"):
            await append_in(connection, Append("order-1", [placed()]))
    assert await streams(events) == []


async def test_a_transaction_that_has_failed_is_named(user_engine: AsyncEngine):
    async with user_engine.connect() as connection:
        with pytest.raises(DBAPIError):
            await connection.execute(text("SELECT 1/0"))
        with pytest.raises(InvalidInput, match="Your transaction has failed"):
            await append_in(connection, Append("order-1", [placed()]))


async def test_a_database_without_event_tables_is_refused_with_a_sentence(database_url: str):
    engine = create_async_engine(database_url, poolclass=NullPool)
    async with engine.connect() as connection:
        with pytest.raises(SchemaMismatch, match="Run `saga-engine migrate --events`"):
            await append_in(connection, Append("order-1", [placed()]))
    await engine.dispose()
