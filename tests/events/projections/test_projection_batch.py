"""Effects and checkpoint are one transaction, also for the second of two owners."""

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from saga_engine.errors import DefinitionError, StoreLockTimeout, StoreUnavailable
from saga_engine.events.event_store.recorded import EventData, Recorded
from saga_engine.events.handlers.on_poison import OnPoison
from saga_engine.events.handlers.poison_event import PoisonEvent
from saga_engine.events.projections import projection_actions, projection_failures, projection_table
from saga_engine.events.projections.change import Change, delete, put, upsert
from saga_engine.events.projections.event_batch import BatchResult, EventBatch, StreamRetry
from saga_engine.events.projections.projection import Projection
from saga_engine.events.projections.projection_batch import BatchApplier
from saga_engine.events.projections.projection_table import ProjectionState
from saga_engine.events.projections.projection_version import ProjectionVersion
from saga_engine.events.projections.sql_projection_store import SqlProjectionStore
from saga_engine.events.readers.operator_audit import Operator
from saga_engine.events.readers.owned_loop import NotOwner
from saga_engine.payload.guard import NO_TIME_LIMIT
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE
from tests.kit.projections import (
    append_one,
    append_orders,
    cancelled,
    check_read_model,
    placed,
    projection_database,
    rows,
    stored,
)
from tests.kit.read_model import BY_ID, HISTORY, Cancelled, Placed, orders_projection

OPERATOR = Operator("ada", "a test")


@pytest.fixture
async def database(event_url):
    async with projection_database(event_url) as database:
        yield database


async def applier(database, projection: Projection, owner: str = "a", **settings) -> BatchApplier:
    """A process that takes the lease if it can."""
    async with database.transaction() as tx:
        await projection_table.register(tx, [projection])
    version = ProjectionVersion(projection, projection.version)
    store = SqlProjectionStore(database, version)
    made = BatchApplier(store, version, owner, Settings(**settings), NO_TIME_LIMIT)
    await made.acquire()
    return made


async def end_lease(database) -> None:
    """What happens while the owner is stopped."""
    async with database.transaction() as tx:
        ended = "UPDATE saga_engine.projection SET leased_until = now()"
        await tx.connection.exec_driver_sql(ended)


async def retry_of(
    database: Database,
    one: BatchApplier,
    checkpoint: int,
    events: Sequence[Recorded],
    number: int | None = None,
) -> StreamRetry:
    """A retry of a parked stream with its next events, or with so many of them."""
    async with database.transaction() as tx:
        await tx.connection.exec_driver_sql(
            "UPDATE saga_engine.parked_stream SET retry_requested_at = now()"
        )
    (parked,) = await one.retried_streams()
    if number is None:
        return StreamRetry(checkpoint, parked, events, None)
    last = events[number - 1]
    following = replace(parked, next_position=last.position + 1, next_version=last.version)
    return StreamRetry(checkpoint, parked, events[:number], following)


async def next_batch(events, after: int = 0) -> EventBatch:
    read = [each async for each in events.read_all(after=after)]
    return EventBatch(after, await events.position(), read)


async def test_the_second_of_two_owners_writes_nothing(events, database):
    await append_orders(events, 10)
    first = await applier(database, orders_projection(), "a")
    await end_lease(database)
    second = await applier(database, orders_projection(), "b")
    batch = await next_batch(events)

    async def attempt(owner: BatchApplier) -> bool:
        try:
            await owner.apply(batch)
        except NotOwner:
            return False
        return True

    async with asyncio.TaskGroup() as tasks:
        applied = [tasks.create_task(attempt(each)) for each in (first, second)]
    assert sorted(each.result() for each in applied) == [False, True]
    await check_read_model(database, batch.events)


@pytest.mark.parametrize("is_retry", [True, False])
async def test_an_owner_that_was_stopped_does_not_continue_with_what_it_knew(
    events, database, is_retry
):
    """What it knew of the parked streams is out of date at the same position."""
    await append_one(events, "order-1", placed("poison"))
    stopped = await applier(database, orders_projection(on_poison="park-stream"), "a")
    parked = await next_batch(events)
    await stopped.apply(parked)
    await append_one(events, "order-1", placed(), placed())
    pending = await next_batch(events, parked.until)
    await end_lease(database)
    corrected = orders_projection(poison="", on_poison="park-stream")
    other = await applier(database, corrected, "b")
    retried = await retry_of(database, other, parked.until, parked.events)
    await other.retry_stream(retried)
    again = stopped.retry_stream(retried) if is_retry else stopped.apply(pending)
    with pytest.raises(NotOwner):
        await again
    await other.apply(pending)
    await check_read_model(database, (await next_batch(events)).events)


async def test_a_paused_projection_is_not_changed(events, database):
    await append_orders(events, 1)
    one = await applier(database, orders_projection())
    async with database.transaction() as tx:
        paused, active = ProjectionState.PAUSED, [ProjectionState.ACTIVE]
        await projection_table.set_state(tx, orders_projection(), paused, active)
    with pytest.raises(NotOwner):
        await one.apply(await next_batch(events))
    assert await rows(database, "order_by_id") == []


async def test_a_lock_that_another_transaction_holds_does_not_blame_an_event(events, database):
    await append_one(events, "order-1", placed())
    one = await applier(database, orders_projection())
    async with database.transaction() as tx:
        await tx.connection.exec_driver_sql("LOCK TABLE order_by_id")
        with pytest.raises(StoreLockTimeout):
            await one.apply(await next_batch(events))
    assert (await one.apply(await next_batch(events))).poison == ()
    await check_read_model(database, (await next_batch(events)).events)


async def test_an_unavailable_database_in_a_function_does_not_blame_an_event(events, database):
    projection = Projection("times_out", version=1, tables=[BY_ID])

    @projection.on(Placed)
    async def placed_function(event, recorded, connection) -> None:
        await connection.exec_driver_sql("LOCK TABLE order_by_id")

    await append_one(events, "order-1", placed())
    one = await applier(database, projection)
    async with database.transaction() as tx:
        await tx.connection.exec_driver_sql("LOCK TABLE order_by_id")
        with pytest.raises(StoreLockTimeout):
            await one.apply(await next_batch(events))
    assert (await stored(database, "times_out")).state == "active"


async def test_a_poison_event_in_a_sql_function_is_found_and_its_effects_are_undone(
    events, database
):
    projection = Projection("sql", version=1, tables=[BY_ID])

    @projection.on(Placed)
    async def placed_function(event, recorded, connection) -> None:
        await connection.exec_driver_sql(
            f"INSERT INTO order_by_id VALUES ('{recorded.stream}', 'x', 'placed', 1)"
        )
        if event.customer == "poison":
            raise KeyError(event.customer)

    for n in range(9):
        await append_one(events, f"order-{n}", placed("poison" if n == 4 else "ada"))
    one = await applier(database, projection)
    batch = await next_batch(events)
    result = await one.apply(batch)
    assert (result.stopped, result.position) == (True, batch.events[4].position - 1)
    assert result.poison[0].error == "placed_function raised KeyError."
    assert f"{__file__}:" in result.poison[0].trace
    assert [row[0] for row in await rows(database, "order_by_id")] == [
        f"order-{n}" for n in range(4)
    ]


@pytest.mark.parametrize("is_sql", [False, True])
@pytest.mark.parametrize(
    ("alter", "missing"),
    [
        ("DROP TABLE order_by_id", 'table "order_by_id" that the projection uses (SQLSTATE 42P01)'),
        (
            "ALTER TABLE order_by_id DROP COLUMN status",
            'column "status" of table "order_by_id" that the projection uses (SQLSTATE 42703)',
        ),
    ],
)
async def test_a_missing_table_or_column_stops_the_projection_and_parks_no_stream(
    events, database, is_sql, alter, missing
):
    """No event is to blame: each stream would be parked, one after the other."""
    projection = orders_projection(on_poison="park-stream")
    if is_sql:
        projection = Projection("orders", version=1, tables=[BY_ID], on_poison="park-stream")

        @projection.on(Placed)
        async def placed_function(event, recorded, connection) -> None:
            await connection.execute(BY_ID.insert().values(id="1", status="x", version=1))

    await append_one(events, "order-1", placed())
    one = await applier(database, projection)
    async with database.transaction() as tx:
        await tx.connection.exec_driver_sql(alter)
    result = await one.apply(await next_batch(events))
    (poison,) = result.poison
    assert f"The database lacks {missing}. Create it" in poison.error
    assert (result.stopped, one.parked) == (True, {})
    assert (await stored(database, "orders")).state == ProjectionState.STOPPED


async def test_a_missing_table_stops_the_projection_that_retries_a_parked_stream(events, database):
    """The stream waits at its event, and is retried when the projection goes on."""
    await append_one(events, "order-1", placed("poison"), placed())
    one = await applier(database, orders_projection(on_poison="park-stream"))
    batch = await next_batch(events)
    await one.apply(batch)
    corrected = orders_projection(poison="", on_poison="park-stream")
    other = await applier(database, corrected, "a")
    retry = await retry_of(database, other, batch.until, batch.events)
    async with database.transaction() as tx:
        await tx.connection.exec_driver_sql("ALTER TABLE order_by_id RENAME TO moved")
    result = await other.retry_stream(retry)
    (poison,) = result.poison
    assert 'The database lacks table "order_by_id"' in poison.error
    found = await stored(database, "orders")
    assert (result.stopped, found.state) == (True, ProjectionState.STOPPED)
    assert found.position == batch.until
    async with database.transaction() as tx:
        await tx.connection.exec_driver_sql("ALTER TABLE moved RENAME TO order_by_id")
        await projection_actions.retry(tx, "orders", OPERATOR)
    await other.acquire()
    assert other.parked == {"order-1": batch.events[0].position}
    await other.retry_stream(await retry_of(database, other, batch.until, batch.events))
    await check_read_model(database, batch.events)


async def test_a_missing_table_that_is_named_after_a_value_is_not_named(events, database):
    projection = Projection("orders", version=1, tables=[BY_ID])

    @projection.on(Placed)
    async def placed_function(event, recorded, connection) -> None:
        await connection.exec_driver_sql(f'DELETE FROM "of_{event.customer}"')

    await append_one(events, "order-1", placed("secret"))
    one = await applier(database, projection)
    (poison,) = (await one.apply(await next_batch(events))).poison
    assert "lacks a table, column or function that" in poison.error


def ending(how, **options) -> Projection:
    """A projection that counts orders, with a function that ends the transaction."""
    projection = orders_projection(**options)
    del projection.handlers["order-cancelled"]

    @projection.on(Cancelled)
    async def end(event, recorded, connection) -> None:
        await how(connection)

    return projection


async def driver_of(connection) -> Any:
    """The connection of asyncpg."""
    return (await connection.get_raw_connection()).driver_connection


async def commit_below_the_driver(connection) -> None:
    await (await driver_of(connection))._protocol.query("COMMIT", None)


async def execute_a_script(connection) -> None:
    await (await driver_of(connection)).execute("SELECT 1; COMMIT; BEGIN")


async def fetch_with_the_driver(connection) -> None:
    await (await driver_of(connection)).fetch("/* the end */ END")


@pytest.mark.parametrize(
    "end",
    [
        lambda connection: connection.commit(),
        lambda connection: connection.rollback(),
        lambda connection: connection.close(),
        lambda connection: connection.exec_driver_sql("COMMIT"),
        lambda connection: connection.execute(text("rollback -- all")),
        execute_a_script,
        fetch_with_the_driver,
    ],
)
async def test_what_ends_the_transaction_is_refused(events, database, end):
    """The events before it are applied, and nothing twice."""
    await append_one(events, "order-1", placed(), cancelled())
    one = await applier(database, ending(end))
    batch = await next_batch(events)
    result = await one.apply(batch)
    assert (result.stopped, result.position) == (True, batch.events[0].position)
    assert "end has ended the transaction. Leave commit" in result.poison[0].error
    await check_read_model(database, batch.events[:1])


@pytest.mark.parametrize("on_poison", ["stop", "park-stream"])
async def test_a_function_that_catches_the_refusal_of_its_commit_has_committed_nothing(
    events, database, on_poison
):
    async def commit(connection) -> None:
        with contextlib.suppress(DefinitionError):
            await connection.exec_driver_sql("COMMIT")

    await append_one(events, "order-1", placed(), cancelled())
    one = await applier(database, ending(commit, on_poison=on_poison))
    batch = await next_batch(events)
    assert await one.apply(batch) == BatchResult(batch.until)
    await check_read_model(database, batch.events[:1])


async def test_a_function_may_undo_a_part_of_what_it_did(events, database):
    async def undo(connection) -> None:
        await connection.exec_driver_sql("SAVEPOINT mine")
        await connection.exec_driver_sql("DELETE FROM order_by_id")
        await connection.exec_driver_sql("ROLLBACK TO SAVEPOINT mine")
        async with connection.begin_nested() as nested:
            await connection.exec_driver_sql("DELETE FROM order_by_id")
            await nested.rollback()

    await append_one(events, "order-1", placed(), cancelled())
    one = await applier(database, ending(undo))
    batch = await next_batch(events)
    assert await one.apply(batch) == BatchResult(batch.until)
    await check_read_model(database, batch.events[:1])


async def test_events_beside_one_that_has_committed_are_not_applied_again(events, database):
    """Below the driver nothing is refused, but it is found afterwards."""
    await append_one(events, "order-1", placed(), cancelled(), placed())
    one = await applier(database, ending(commit_below_the_driver))
    batch = await next_batch(events)
    result = await one.apply(batch)
    assert (result.stopped, result.position) == (True, batch.after)
    assert "end has ended the transaction" in result.poison[0].error
    await check_read_model(database, batch.events[:1])


async def test_a_parked_stream_in_which_an_event_has_committed_waits_at_it(events, database):
    await append_one(events, "order-1", placed("poison"), cancelled())
    one = await applier(database, ending(commit_below_the_driver, on_poison="park-stream"))
    batch = await next_batch(events)
    await one.apply(batch)
    async with database.transaction() as tx:
        await projection_actions.skip(tx, "orders", batch.events[0].position, OPERATOR)
    result = await one.retry_stream(await retry_of(database, one, batch.until, batch.events[1:]))
    assert "end has ended the transaction" in result.poison[0].error
    async with database.transaction() as tx:
        parked = await projection_failures.parked_streams(tx, orders_projection())
        assert await projection_failures.retried_streams(tx, orders_projection()) == []
    assert parked == {"order-1": batch.events[1].position}


async def test_several_streams_are_parked_in_one_batch(events, database):
    for n in range(6):
        await append_one(events, f"order-{n % 3}", placed("poison" if n in {1, 2} else "ada"))
    one = await applier(database, orders_projection(on_poison=OnPoison.PARK_STREAM))
    batch = await next_batch(events)
    result = await one.apply(batch)
    assert [each.recorded for each in result.poison] == [batch.events[1], batch.events[2]]
    assert one.parked == {"order-1": batch.events[1].position, "order-2": batch.events[2].position}
    await check_read_model(database, [each for each in batch.events if each.stream == "order-0"])


async def test_a_parked_stream_is_caught_up_in_several_batches(events, database):
    healthy = False
    projection = Projection("orders", version=1, tables=[BY_ID], on_poison="park-stream")

    @projection.on(Cancelled)
    async def cancel(event, recorded, connection) -> None:
        assert healthy or event.reason != "poison"
        sql = f"""INSERT INTO order_by_id VALUES ('{recorded.stream}', '{event.reason}', '', 1)
            ON CONFLICT (id) DO UPDATE SET status = order_by_id.status || ' {event.reason}'"""
        await connection.exec_driver_sql(sql)

    reasons = ["poison", "a", "b", "poison", "c"]
    await append_one(events, "order-1", *map(cancelled, reasons))
    one = await applier(database, projection)
    batch = await next_batch(events)
    await one.apply(batch)
    again = await one.retry_stream(await retry_of(database, one, batch.until, batch.events))
    assert [each.recorded.position for each in again.poison] == [batch.events[0].position]
    healthy = True
    checkpoint, third = batch.until, batch.events[2].position
    await one.retry_stream(await retry_of(database, one, checkpoint, batch.events, 3))
    assert one.parked == {"order-1": third + 1}
    await one.retry_stream(await retry_of(database, one, checkpoint, batch.events[3:]))
    assert one.parked == {}
    ((_, first, others, _),) = await rows(database, "order_by_id")
    assert [first, *others.split()] == reasons
    assert (await stored(database, "orders")).position == checkpoint


async def test_an_event_that_is_skipped_while_its_retry_begins_is_not_applied(events, database):
    await append_one(events, "order-1", placed("poison"), placed())
    one = await applier(database, orders_projection(on_poison=OnPoison.PARK_STREAM))
    batch = await next_batch(events)
    await one.apply(batch)
    retry = await retry_of(database, one, batch.until, batch.events)
    async with database.transaction() as tx:
        await projection_actions.skip(tx, "orders", batch.events[0].position, OPERATOR)
    assert (await one.retry_stream(retry)).poison == ()
    assert one.parked == {"order-1": batch.events[0].position + 1}
    async with database.transaction() as tx:
        assert await projection_failures.read_open(tx, "orders", 1) == []
    await one.retry_stream(await retry_of(database, one, batch.until, batch.events[1:]))
    await check_read_model(database, batch.events[1:])


async def test_an_error_with_characters_that_postgresql_refuses_is_recorded(events, database):
    """A key of the data of an event that another program has inserted is in the error."""
    await append_one(events, "order-1", placed())
    projection = orders_projection()
    await applier(database, projection)
    (event,) = (await next_batch(events)).events
    found = PoisonEvent(recorded=event, error="a\0b\ud800", trace="")
    async with database.transaction() as tx:
        await projection_failures.record(tx, projection, found)
    async with database.transaction() as tx:
        (failure,) = await projection_failures.read_open(tx, "orders", 1)
    assert failure.error == "a?b?"


async def test_a_failure_is_recorded_with_its_attempts(events, database):
    await append_one(events, "order-1", placed("poison"))
    one = await applier(database, orders_projection(on_poison="park-stream"))
    batch = await next_batch(events)
    await one.apply(batch)
    await one.retry_stream(await retry_of(database, one, batch.until, batch.events))
    async with database.transaction() as tx:
        (failure,) = await projection_failures.read_open(tx, "orders", 1)
    assert (failure.stream, failure.stream_version, failure.type) == ("order-1", 1, "order-placed")
    assert (failure.attempts, failure.parked) == (2, True)
    assert "placed raised ValueError at" in failure.error


@pytest.mark.parametrize("is_sql", [False, True])
async def test_a_function_that_alters_its_event_is_given_it_unaltered(events, database, is_sql):
    """Also when the batch is applied again in parts, because of another event."""
    projection = Projection("alters", version=1, tables=[HISTORY])

    def total(data: Any, recorded: Recorded) -> str:
        stored: Any = recorded.data
        data["total"] += "0"
        stored["lines"].append("y")
        if data["customer"] == "poison":
            raise ValueError
        return f"{data['total']} {stored['lines']}"

    if is_sql:

        @projection.on("order-placed")
        async def insert_row(data: Any, recorded: Recorded, connection) -> None:
            row = HISTORY.insert().values(number=recorded.position, what=total(data, recorded))
            await connection.execute(row)
    else:

        @projection.on("order-placed")
        def change_row(data: Any, recorded: Recorded) -> Change:
            what = {"what": total(data, recorded)}
            return upsert(HISTORY, key={"number": recorded.position}, put=what)

    for customer in ("ada", "grace", "edsger", "poison"):
        data = {"customer": customer, "total": "1", "lines": ["x"]}
        await append_one(events, f"order-{customer}", EventData("order-placed", 1, data))
    one = await applier(database, projection)
    assert (await one.apply(await next_batch(events))).stopped
    found = await rows(database, "order_history")
    assert [what for _, what in found] == ["10 ['x', 'y']"] * 3


class Odd(BaseException):
    """What no `except Exception` catches."""


def raising(error: BaseException):
    async def function(connection) -> None:
        raise error

    return function


async def too_few_parameters(connection) -> None:
    await connection.exec_driver_sql("DELETE FROM order_by_id WHERE id = $1")


async def never_returns(connection) -> None:
    await asyncio.Event().wait()


async def swallows(connection) -> None:
    with contextlib.suppress(IntegrityError):
        await connection.exec_driver_sql("INSERT INTO order_by_id VALUES ('a', NULL, NULL, 1)")


async def unsupported(connection) -> None:
    await connection.exec_driver_sql("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '0A000'; END $$")


@pytest.mark.parametrize(
    ("fail", "problem"),
    [
        (raising(FileNotFoundError(2, "no file")), "insert_row raised FileNotFoundError."),
        (raising(TimeoutError()), "insert_row raised TimeoutError."),
        (raising(Odd()), "insert_row raised Odd."),
        (raising(GeneratorExit()), "insert_row raised GeneratorExit."),
        (too_few_parameters, "insert_row raised InterfaceError."),
        (unsupported, "SQLSTATE 0A000"),
        (never_returns, "insert_row did not return within 0.5 s."),
        (swallows, "`async with connection.begin_nested():`"),
    ],
)
async def test_what_a_sql_function_does_stops_at_its_event(events, database, fail, problem):
    """It is the fault of no other event, and not of the database."""
    projection = Projection("sql", version=1, tables=[HISTORY])

    @projection.on(Placed)
    async def insert_row(event, recorded, connection) -> None:
        await connection.execute(HISTORY.insert().values(number=recorded.version, what="placed"))
        if event.customer == "poison":
            await fail(connection)

    data = [placed("poison" if n == 3 else "ada") for n in range(5)]
    await append_one(events, "order-1", *data)
    one = await applier(database, projection, database_transaction_timeout=1.0)
    batch = await next_batch(events)
    result = await one.apply(batch)
    assert (result.stopped, result.position) == (True, batch.events[3].position - 1)
    assert problem in result.poison[0].error
    assert [number for number, _ in await rows(database, "order_history")] == [1, 2, 3]


async def blocks(connection) -> None:
    threading.Event().wait(1.1)
    await connection.exec_driver_sql("SELECT 1")


async def waits_in_a_statement(connection) -> None:
    await connection.exec_driver_sql("SELECT pg_sleep(60)")


@pytest.mark.parametrize(
    ("on_poison", "fail"),
    [
        ("stop", blocks),
        ("park-stream", waits_in_a_statement),
        pytest.param("stop", waits_in_a_statement, marks=pytest.mark.long),
        pytest.param("park-stream", blocks, marks=pytest.mark.long),
    ],
)
async def test_a_function_that_takes_the_time_of_the_transaction_is_blamed(
    events, database, fail, on_poison
):
    """Its error does not name it, and is the one of a database that does not answer."""
    projection = Projection("sql", version=1, tables=[HISTORY], on_poison=on_poison)

    @projection.on(Placed)
    async def insert_row(event, recorded, connection) -> None:
        await connection.execute(HISTORY.insert().values(number=recorded.position, what="placed"))
        if event.customer == "poison":
            await fail(connection)

    for n in range(3):
        await append_one(events, f"order-{n}", placed("poison" if n == 1 else "ada"))
    one = await applier(database, projection, database_transaction_timeout=1.0)
    read = (await next_batch(events)).events
    result = await one.apply(await next_batch(events))
    while not result.poison:
        result = await one.apply(await next_batch(events, result.position))
    assert result.poison[0].recorded == read[1]
    assert result.poison[0].error == "insert_row did not return within 0.5 s."
    if on_poison == "stop":
        assert (result.stopped, result.position) == (True, read[1].position - 1)
        return
    rest = await next_batch(events, result.position)
    assert (await one.apply(rest)).poison == ()
    again = await one.retry_stream(await retry_of(database, one, rest.until, read[1:2]))
    assert again.poison[0].error == "insert_row did not return within 0.5 s."
    found = await rows(database, "order_history")
    assert [number for number, _ in found] == [read[0].position, read[2].position]


@pytest.fixture
async def short_database(event_url, database):
    """The same database, whose server ends a transaction after one second."""
    settings = Settings(database_transaction_timeout=1.0)
    async with Database(event_url, settings, EVENT_DATABASE) as short:
        yield short


@pytest.mark.parametrize("on_poison", ["stop", pytest.param("park-stream", marks=pytest.mark.long)])
async def test_a_function_that_blocks_until_another_process_has_its_lease_is_blamed(
    events, short_database, event_url, on_poison
):
    """Each process loses the lease before it can say which function it is."""
    database = short_database
    projection = Projection("sql", version=1, tables=[HISTORY], on_poison=on_poison)
    calls = []

    @projection.on(Placed)
    async def insert_row(event, recorded, connection) -> None:
        await connection.execute(HISTORY.insert().values(number=recorded.position, what="placed"))
        if event.customer == "poison":
            calls.append(recorded.position)
            thread = threading.Thread(target=asyncio.run, args=[_take_lease(event_url)])
            thread.start()
            thread.join()  # it waits until PostgreSQL has ended this transaction

    for n in range(3):
        await append_one(events, f"order-{n}", placed("poison" if n == 1 else "ada"))
    one = await applier(database, projection, database_transaction_timeout=1.0)
    first, second, _ = (await next_batch(events)).events
    for after in (0, first.position):
        with pytest.raises(NotOwner):
            await one.apply(await next_batch(events, after))
        await end_lease(database)
        await one.acquire()
        if after == 0:
            result = await one.apply(await next_batch(events))
            assert result == BatchResult(second.position - 1)
    result = await one.apply(await next_batch(events, second.position - 1))
    (poison,) = result.poison
    assert (poison.recorded, calls) == (second, [second.position] * 2)
    assert poison.error == "insert_row did not return within 0.5 s."
    assert result.stopped is (on_poison == "stop")
    assert one.parked == ({} if result.stopped else {"order-1": second.position})


async def _take_lease(url: str) -> None:
    """What another process does when a lease has ended."""
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.begin() as connection:
        taken = "UPDATE saga_engine.projection SET owner = 'other', leased_until = now()"
        await connection.exec_driver_sql(taken)
    await engine.dispose()


async def test_a_session_that_is_ended_in_a_function_does_not_blame_its_event(events, database):
    projection = Projection("sql", version=1, tables=[HISTORY])
    ended = False

    @projection.on(Placed)
    async def end_session(event, recorded, connection) -> None:
        nonlocal ended
        if not ended:
            ended = True
            await connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

    await append_one(events, "order-1", placed())
    one = await applier(database, projection)
    batch = await next_batch(events)
    with pytest.raises(StoreUnavailable):
        await one.apply(batch)
    assert (await one.apply(batch)).poison == ()


PLACES = MetaData()
PARENTS = Table("parents", PLACES, Column("id", Integer, primary_key=True))
CHILDREN = Table(
    "children",
    PLACES,
    Column("id", Integer, primary_key=True),
    Column("parent", ForeignKey(PARENTS.c.id)),
    Column("seat", Integer, unique=True),
)
LATE = Table(
    "late_children",
    PLACES,
    Column("id", Integer, primary_key=True),
    Column("parent", ForeignKey(PARENTS.c.id, deferrable=True, initially="DEFERRED")),
)
ADOPTED = upsert(CHILDREN, key={"id": 1}, put={"parent": 1, "seat": 1})


@pytest.mark.parametrize(
    ("before", "changes"),
    [
        (
            [upsert(PARENTS, key={"id": 1}), ADOPTED],
            [upsert(PARENTS, key={"id": 2}), put(CHILDREN, key={"id": 1}, values={"parent": 2})],
        ),
        (
            [upsert(PARENTS, key={"id": 1}), ADOPTED],
            [put(CHILDREN, key={"id": 1}, values={"parent": None}), delete(PARENTS, key={"id": 1})],
        ),
        (
            [upsert(CHILDREN, key={"id": n}, put={"seat": n}) for n in (1, 2)],
            [
                upsert(CHILDREN, key={"id": 1}, put={"seat": None}),
                put(CHILDREN, key={"id": 2}, values={"seat": 1}),
            ],
        ),
    ],
)
async def test_changes_that_are_right_in_their_order_are_not_poison(
    events, database, before, changes
):
    """The folded changes are written in another order, which these constraints refuse."""
    projection = Projection("places", version=1, tables=[PARENTS, CHILDREN])

    @projection.on(Placed)
    def first(event: Placed, recorded: Recorded) -> list[Change]:
        made: list[Change] = before if event.customer == "before" else changes
        return made

    async with database.transaction() as tx:
        await tx.connection.run_sync(PLACES.create_all)
    one = await applier(database, projection)
    after = 0
    for customer in ("before", "ada"):  # changes of both would be folded to other ones
        await append_one(events, "order-1", placed(customer))
        batch = await next_batch(events, after)
        assert await one.apply(batch) == BatchResult(batch.until)
        after = batch.until


async def test_an_event_that_breaks_a_deferred_constraint_is_found(events, database):
    projection = Projection("late", version=1, tables=[PARENTS, LATE])

    @projection.on(Placed)
    def adopt(event: Placed, recorded: Recorded) -> list[Change]:
        parent = 77 if event.customer == "poison" else recorded.version
        made = [upsert(LATE, key={"id": recorded.version}, put={"parent": parent})]
        return [*made, upsert(PARENTS, key={"id": recorded.version})]

    async with database.transaction() as tx:
        await tx.connection.run_sync(PLACES.create_all)
    await append_one(events, "order-1", placed(), placed("poison"), placed())
    one = await applier(database, projection)
    batch = await next_batch(events)
    result = await one.apply(batch)
    assert (result.stopped, result.position) == (True, batch.events[1].position - 1)
    assert "late_children_parent_fkey" in result.poison[0].error
    async with database.transaction() as tx:
        assert [*(await tx.connection.execute(LATE.select())).scalars()] == [1]
