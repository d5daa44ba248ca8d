"""Appending and reading over a connection pool of its own."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC
from typing import Any

import pytest

from saga_engine.errors import InvalidInput, SchemaMismatch, StoreLockTimeout, WrongVersion
from saga_engine.events import (
    ANY,
    EXISTING,
    NEW,
    Append,
    EventData,
    Events,
    MessageContext,
    Projection,
)
from saga_engine.message_context import handling
from saga_engine.settings import Settings
from saga_engine.vocabulary import Json
from tests.kit.event_database import connected, placed
from tests.kit.wallet import Deposit, Deposited, wallets


async def read(events: Events, stream: str, after: int = 0) -> list:
    return [event async for event in events.read(stream, after=after)]


async def read_all(events: Events, **options) -> list:
    return [event async for event in events.read_all(**options)]


async def test_events_are_read_as_they_were_appended(events: Events):
    data: Json = {"text": "é\n", "none": None, "nested": [1, 2.5, {"big": 2**63}], "true": True}
    done = await events.append(
        Append("order-1", [placed(1), EventData("order-changed", 3, data)], NEW),
        context=MessageContext("request-1", "message-1", "mara"),
    )
    first, second = await read(events, "order-1")
    assert (first.stream, first.version, first.place, first.type) == (
        *("order-1", 1, 0),
        "order-placed",
    )
    assert (second.version, second.schema_version, second.data) == (2, 3, data)
    assert first.position < second.position == done.position
    assert done.versions == {"order-1": 2}
    assert (second.correlation_id, second.causation_id, second.actor) == (
        *("request-1", "message-1"),
        "mara",
    )
    assert first.recorded_at.tzinfo == UTC
    assert await read(events, "order-1", after=1) == [second]
    assert await read(events, "order-1", after=2) == await read(events, "order-2") == []
    assert await read_all(events) == [first, second]


async def test_events_carry_the_context_of_the_message_that_is_handled(events: Events):
    with handling(MessageContext("run-1", "command-1")):
        await events.append(Append("order-1", [placed()]))
    [event] = await read(events, "order-1")
    assert (event.correlation_id, event.causation_id, event.actor) == ("run-1", "command-1", None)


async def test_an_event_has_the_same_id_in_every_read_and_no_other_event_has_it(events: Events):
    await events.append(Append("order-1", [placed()] * 20), Append("order-2", [placed()] * 20))
    in_order = {event.id for event in await read_all(events)}
    by_stream = {event.id for name in ("order-1", "order-2") for event in await read(events, name)}
    assert len(in_order) == 40
    assert in_order == by_stream
    assert {each.version for each in in_order} == {5}


@pytest.mark.parametrize(
    ("expected", "refused"), [(NEW, True), (0, True), (1, True), (3, True), (2, False)]
)
async def test_an_append_that_expects_another_version_appends_nothing(
    events: Events, expected, refused
):
    await events.append(Append("order-1", [placed(1), placed(2)]))
    both = (Append("order-2", [placed()], NEW), Append("order-1", [placed(3)], expected))
    if refused:
        with pytest.raises(WrongVersion, match="'order-1' is at version 2") as found:
            await events.append(*both)
        assert (found.value.stream, found.value.actual) == ("order-1", 2)
        assert found.value.expected == expected
    else:
        assert (await events.append(*both)).versions == {"order-2": 1, "order-1": 3}
    assert len(await read_all(events)) == (2 if refused else 4)


async def test_a_stream_can_be_expected_to_exist(events: Events):
    with pytest.raises(WrongVersion, match="expected a stream that is existing"):
        await events.append(Append("order-1", [placed()], EXISTING))
    await events.append(Append("order-1", [placed()], ANY))
    assert (await events.append(Append("order-1", [placed()], EXISTING))).versions == {"order-1": 2}


async def test_of_two_appends_that_expect_one_version_one_is_appended(events: Events):
    async def append(number: int) -> int:
        """Append, and return the version that the stream had before."""
        try:
            await events.append(Append("order-1", [placed(number)], NEW))
        except WrongVersion as error:
            return error.actual
        return 0

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(append(number)) for number in range(8)]
    assert sorted(task.result() for task in tasks) == [0, *[1] * 7]
    assert len(await read(events, "order-1")) == 1


async def test_appends_that_expect_nothing_are_all_appended(events: Events):
    async with asyncio.TaskGroup() as group:
        for number in range(40):
            group.create_task(events.append(Append("order-1", [placed(number), placed(number)])))
    found = await read(events, "order-1")
    assert [event.version for event in found] == [*range(1, 81)]
    numbers = [event.data["number"] for event in found]
    assert numbers[::2] == numbers[1::2]
    assert sorted(numbers[::2]) == [*range(40)]


async def test_appends_to_the_same_streams_in_opposite_orders_are_all_appended(event_url: str):
    """Each locks its streams in its own order, and PostgreSQL undoes one of two that deadlock."""
    names = ("order-1", "order-2")
    async with Events(event_url, settings=Settings(event_batch_size=1)) as events:
        async with asyncio.TaskGroup() as group:
            for number in range(4):
                in_order = names if number % 2 else names[::-1]
                appends = [Append(each, [placed()]) for each in in_order]
                group.create_task(events.append(*appends))
        assert [len(await read(events, each)) for each in names] == [4, 4]


async def test_an_append_gives_up_when_others_are_always_first(event_url: str):
    settings = Settings(event_append_attempts=1)
    insert = (
        "INSERT INTO saga_engine.stream_event (stream, version, type, schema_version, data,"
        " metadata) VALUES ('order-1', 1, 'order-placed', 1, '{}', '{}')"
    )
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    async with (
        Events(event_url, settings=settings) as events,
        connected(event_url) as first,
        connected(event_url) as observer,
    ):
        opened = first.transaction()
        await opened.start()
        await first.execute(insert)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(refused_append(events))
            async with asyncio.timeout(20):
                while not await observer.fetchval(waiting):
                    pass
            await opened.commit()
        assert "other transactions appended to the same stream first" in task.result()
        assert len(await read(events, "order-1")) == 1


async def refused_append(events: Events) -> str:
    with pytest.raises(StoreLockTimeout) as found:
        await events.append(Append("order-1", [placed()]))
    return str(found.value)


async def test_more_events_than_one_statement_takes_are_appended_in_order(event_url: str):
    settings = Settings(event_batch_size=7, event_batch_bytes=200, event_window=100)
    async with Events(event_url, settings=settings) as events:
        appends = [
            Append(
                f"order-{name}", [placed(number, text="x" * number) for number in range(60)], NEW
            )
            for name in ("a", "b", "c")
        ]
        done = await events.append(*appends)
        assert done.versions == {"order-a": 60, "order-b": 60, "order-c": 60}
        everything = await read_all(events)
        assert [(event.stream, event.data["number"]) for event in everything] == [
            (append.stream, number) for append in appends for number in range(60)
        ]
        assert everything[-1].position == done.position == await events.position()
        for name in ("a", "b", "c"):
            found = await read(events, f"order-{name}")
            assert [event.version for event in found] == [*range(1, 61)]


async def test_all_events_are_read_by_type_and_stream(event_url: str):
    async with Events(event_url, settings=Settings(event_batch_size=2)) as events:
        paid = EventData("order-paid", 1, {})
        for name in ("order-1", "order_x-1", "order%-1", "orders-1"):
            await events.append(Append(name, [placed(), paid]))

        async def streams(**options) -> list[str]:
            return [event.stream for event in await read_all(events, **options)]

        assert await streams(streams=["order-*"]) == ["order-1"] * 2
        assert await streams(streams=["order-1", "orders-*"], types=["order-paid"]) == [
            "order-1",
            "orders-1",
        ]
        assert await streams(streams=["order_x-*"]) == ["order_x-1"] * 2
        assert await streams(streams=["order%-1"], types={"order-placed"}) == ["order%-1"]
        assert len(await streams(streams=["*"])) == 8
        assert await streams(types=[]) == await streams(streams=[]) == []


async def test_a_reader_does_not_pass_an_open_append(events: Events, event_url: str):
    insert = (
        "INSERT INTO saga_engine.stream_event (stream, version, type, schema_version, data,"
        " metadata) VALUES ('order-1', 1, 'order-placed', 1, '{}', '{}')"
    )
    async with connected(event_url) as other:
        opened = other.transaction()
        await opened.start()
        await other.execute(insert)
        done = await events.append(Append("order-2", [placed()]))
        assert await read_all(events) == []
        assert await events.position() < done.position
        await opened.commit()
    assert [event.stream for event in await read_all(events)] == ["order-1", "order-2"]
    assert await events.position() == done.position


async def test_a_client_is_used_only_while_it_is_open(event_url: str):
    events = Events(event_url, settings=Settings())
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: events.append(Append("order-1", [placed()])),
        lambda: events.handle(wallets, "w1", Deposit(amount=1)),
        lambda: read(events, "order-1"),
        lambda: read_all(events),
        events.position,
        lambda: events.caught_up(Projection("orders", version=1, tables=[]), 1),
    ]
    for _ in ("before it is entered", "after it was left"):
        for call in calls:
            with pytest.raises(InvalidInput, match="Events is not open"):
                await call()
        async with events:
            assert await read_all(events) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"stream": None}, "The name of a stream must be a text"),
        ({"stream": "nonsense"}, "'nonsense' is not the name of a stream"),
        ({"stream": "order-1", "after": "1"}, "The version to read after is '1'"),
        ({"stream": "order-1", "after": -1}, "The version to read after is -1"),
        ({"stream": "run-1", "after": 2**31}, "Give an integer, from 0 to"),
    ],
)
async def test_what_cannot_be_read_is_refused(events: Events, arguments: Any, sentence: str):
    with pytest.raises(InvalidInput, match=sentence):
        await read(events, **arguments)


@pytest.mark.parametrize("after", ["1", -1, 2**63, None])
async def test_what_is_not_a_position_is_refused(events: Events, after: Any):
    with pytest.raises(InvalidInput, match="Give an integer, from 0 to"):
        await read_all(events, after=after)
    with pytest.raises(InvalidInput, match="Give an integer, from 0 to"):
        await events.caught_up(Projection("orders", version=1, tables=[]), after)


async def test_what_is_not_a_projection_is_not_waited_for(events: Events):
    orders: Any = "orders"
    with pytest.raises(InvalidInput, match="The projection is of the class str"):
        await events.caught_up(orders, 1)


async def test_events_are_selected_by_their_class(events: Events):
    await events.handle(wallets, "w1", Deposit(amount=1))
    await events.append(Append("order-1", [placed()]))
    assert [each.type for each in await read_all(events, types={Deposited})] == ["wallet-deposited"]


async def test_a_database_without_event_tables_is_refused_with_a_sentence(database_url: str):
    with pytest.raises(
        SchemaMismatch, match=r"no event tables\. Run `saga-engine migrate --events`"
    ):
        async with Events(database_url, settings=Settings()):
            pass
