"""What a batch does is one transaction, and an event that fails stops or parks only its own."""

from random import Random
from typing import Any

import pytest
from sqlalchemy import text as sql

from saga_engine.errors import StoreUnavailable
from saga_engine.events import Consumer, Received, from_queue
from saga_engine.events.consumers import consumer_table
from saga_engine.events.consumers.consumer_table import ConsumerState
from saga_engine.events.readers.owned_loop import NotOwner
from saga_engine.message_context import current_context
from tests.kit.consumers import (
    applying,
    attributes_of,
    billing_consumer,
    invoices,
    message_of,
    open_failures,
    order,
    registered_consumer,
    stored_partition,
    write,
)
from tests.kit.read_model import Placed


@pytest.fixture
async def database(event_url):
    async with registered_consumer(event_url) as database:
        yield database


def consuming(database, consumer=None, **settings):
    return applying(database, consumer or billing_consumer(), **settings)


def parking() -> Consumer:
    return billing_consumer(on_poison="park-stream")


async def customers(database) -> list[str]:
    return [customer for _, _, customer in await invoices(database)]


async def test_a_repeated_event_has_no_effect_in_its_batch_and_later(database):
    async with consuming(database) as (batches, _):
        first = await batches.apply([order(1), order(2), order(1)])
        assert (first.applied, first.duplicates, len(first.done)) == (2, 1, 3)
        again = await batches.apply([order(2), order(3)])
        assert (again.applied, again.duplicates) == (1, 1)
    assert [version for _, version, _ in await invoices(database)] == [1, 2, 3]
    stored = await stored_partition(database)
    assert (stored.applied, stored.duplicates) == (3, 2)


async def test_an_offset_is_stored_with_the_effects(database):
    async with consuming(database) as (batches, _):
        await batches.apply(
            [order(1, offset=40), order(2, "poison", offset=41), order(3, offset=42)]
        )
    stored = await stored_partition(database)
    assert (stored.state, stored.next_offset) == (ConsumerState.STOPPED, 41)
    assert await customers(database) == ["ada"]


async def test_messages_whose_reading_takes_long_are_left_for_the_next_batch(database):
    waiting = [order(number, offset=number) for number in range(1, 301)]
    sizes = []
    async with consuming(database, projection_batch_seconds=0.001) as (batches, _):
        while waiting:
            result = await batches.apply(waiting)
            sizes.append(len(result.done))
            assert result.done == waiting[: sizes[-1]]
            assert (await stored_partition(database)).next_offset == result.done[-1].offset + 1
            waiting = waiting[sizes[-1] :]
    assert len(sizes) > 1
    assert [version for _, version, _ in await invoices(database)] == [*range(1, 301)]


@pytest.mark.parametrize("at", [0, 1, 2])
async def test_a_poison_event_stops_the_partition_before_it(database, at):
    messages = [order(n, "poison" if n == at else f"c{n}", f"order-{n}") for n in range(3)]
    async with consuming(database) as (batches, _):
        result = await batches.apply(messages)
        assert result.stopped
        assert result.done == messages[:at]
        with pytest.raises(NotOwner):
            await batches.apply(messages[at:])
    assert await customers(database) == [f"c{n}" for n in range(at)]
    (failure,) = await open_failures(database)
    assert (failure.kind, failure.stream, failure.type) == (
        "stopped",
        f"order-{at}",
        "order-placed",
    )
    assert failure.error == "placed raised ValueError."
    assert "tests/kit/consumers.py" in failure.trace


async def test_a_poison_event_parks_its_stream_and_others_go_on(database):
    async with consuming(database, parking()) as (batches, writer):
        messages = [order(1, "poison"), order(2), order(3, "bob", "order-o-2")]
        result = await batches.apply(messages)
        assert (result.applied, result.kept, result.stopped) == (1, 1, False)
        assert result.done == messages
        assert writer.kept.streams == {"order-o-1"}
        later = await batches.apply([order(4), order(2), order(5, "eve", "order-o-2")])
        assert (later.applied, later.kept, later.duplicates) == (1, 1, 1)
        assert (await writer.acquire()) is not None
        assert (writer.kept.streams, writer.kept.messages) == ({"order-o-1"}, 3)
    assert await customers(database) == ["bob", "eve"]
    (failure,) = await open_failures(database)
    assert failure.kind == "parked"


async def test_a_stream_with_the_longest_name_can_be_parked(database):
    """Of characters that PostgreSQL cannot compress to fit them into a row of an index."""
    characters = Random(1).sample(range(0x20000, 0x2A000), 500)
    stream = "".join(map(chr, characters))
    async with consuming(database, parking()) as (batches, writer):
        await batches.apply([order(1, "poison", stream), order(2, "ada", stream)])
        assert writer.kept.streams == {stream}


async def test_an_event_without_a_stream_is_kept_and_nothing_waits_for_it(database):
    async with consuming(database, parking()) as (batches, _):
        result = await batches.apply([order(1, "poison", ""), order(2, "ada", "")])
        assert (result.applied, result.kept, len(result.failures)) == (1, 0, 1)


async def test_a_message_that_cannot_be_read_is_kept_once(database):
    broken = message_of({"specversion": "1.0"}, body=b"\xff")
    async with consuming(database) as (batches, _):
        for _ in range(2):
            result = await batches.apply([broken, order(1)])
            assert not result.stopped
    (failure,) = await open_failures(database)
    assert (failure.kind, failure.attempts) == ("unreadable", 2)
    assert await customers(database) == ["ada"]


async def test_more_kept_messages_than_allowed_stop_the_partition(database):
    async with consuming(database, parking(), max_consumer_failures=2) as (batches, _):
        result = await batches.apply([order(1, "poison"), *map(order, range(2, 5))])
        assert result.stopped
        assert len(result.done) == 2
    stopped = (await open_failures(database))[-1]
    assert "2 messages wait for a correction" in stopped.error


async def test_many_unreadable_messages_stop_the_partition_and_lose_none(database):
    broken = [message_of({}, body=bytes([n])) for n in range(3)]
    async with consuming(database, max_consumer_failures=2) as (batches, _):
        result = await batches.apply(broken)
        assert (result.stopped, result.done) == (True, broken[:2])
    assert len(await open_failures(database)) == 3


async def test_another_owner_takes_over_and_the_old_one_writes_nothing(database):
    async with consuming(database) as (old, _):
        async with database.transaction() as tx:
            await consumer_table.release(tx, "process-1")
        async with consuming(database, owner="process-2") as (new, _):
            with pytest.raises(NotOwner):
                await old.apply([order(1)])
            await new.apply([order(1)])
    assert len(await invoices(database)) == 1


def failing(function: Any) -> Consumer:
    consumer = Consumer("billing", source=from_queue(), on_poison="park-stream")

    @consumer.on(Placed)
    async def placed(event: Placed, received: Received, connection: Any) -> None:
        await write(connection, received, event.customer, event.total)
        if event.customer == "poison":
            await function(connection)

    return consumer


async def commits(connection):
    await connection.commit()


async def commits_by_sql(connection):
    await connection.execute(sql("COMMIT"))


async def violates(connection):
    await connection.execute(sql("INSERT INTO invoice (number) VALUES (7)"))


async def lacks_a_table(connection):
    await connection.execute(sql("SELECT * FROM missing"))


@pytest.mark.parametrize(
    ("function", "kind", "problem", "effects"),
    [
        (commits, "parked", "has ended the transaction", ["ada", "eve"]),
        (commits_by_sql, "parked", "has ended the transaction", ["ada", "eve"]),
        (violates, "parked", "23502", ["ada", "eve"]),
        (lacks_a_table, "stopped", 'lacks table "missing" that the consumer uses', ["ada"]),
    ],
)
async def test_a_function_that_fails_is_blamed(database, function, kind, problem, effects):
    async with consuming(database, failing(function)) as (batches, _):
        await batches.apply([order(1, "ada", "order-1")])
        await batches.apply([order(2, "poison", "order-2"), order(3, "eve", "order-3")])
    (failure,) = await open_failures(database)
    assert (failure.kind, failure.stream) == (kind, "order-2")
    assert problem in failure.error
    assert await customers(database) == effects


async def test_a_function_that_does_not_return_is_blamed(database):
    async def sleeps(connection):
        await connection.execute(sql("SELECT pg_sleep(60)"))

    consumer = failing(sleeps)
    async with consuming(database, consumer, database_transaction_timeout=0.5) as (batches, _):
        messages = [order(1, "ada", "order-1"), order(2, "poison", "order-2")]
        result = await batches.apply(messages)
    assert [each.stream for each in result.failures] == ["order-2"]
    assert "did not return within 0.25 s" in result.failures[0].error
    assert await customers(database) == ["ada"]


async def test_an_unavailable_database_blames_no_event(database):
    async def loses_its_connection(connection):
        await connection.execute(sql("SELECT pg_terminate_backend(pg_backend_pid())"))

    async with consuming(database, failing(loses_its_connection)) as (batches, _):
        with pytest.raises(StoreUnavailable):
            await batches.apply([order(1, "poison")])
    assert await open_failures(database) == []
    assert await customers(database) == []


async def test_what_a_function_appends_is_caused_by_its_event(database):
    seen = []

    async def looks(_connection):
        seen.append(current_context())

    async with consuming(database, failing(looks)) as (batches, _):
        message = message_of(
            attributes_of(1, correlationid="request-7", actor="mara"),
            {"customer": "poison", "total": "1"},
        )
        await batches.apply([message])
    (context,) = seen
    assert context.correlation_id == "request-7"
    assert context.causation_id == "00000000-0000-0000-0000-000000000001"
    assert context.actor == "mara"
