"""What an operator does with a projection, and that it stays known who did it and why."""

import asyncio
from typing import Any

import pytest

from saga_engine.errors import Conflict, NotFound
from saga_engine.events.projections import projection_actions, projection_failures
from saga_engine.events.projections.projection_table import ProjectionState
from saga_engine.events.readers import operator_audit
from saga_engine.events.readers.operator_audit import Operator
from saga_engine.telemetry.events import ProjectionAcquired, ProjectionStopped, StreamParked
from tests.kit.programs import wait_until_true
from tests.kit.projections import (
    append_one,
    cancelled,
    check_read_model,
    placed,
    projection_database,
    rows,
    running_projector,
    stored,
    wait_for_position,
)
from tests.kit.read_model import history_projection, orders_projection

ADA = Operator("ada", "the customer was a test")


@pytest.fixture
async def database(event_url):
    async with projection_database(event_url) as database:
        yield database


async def act(database, action, *arguments):
    async with database.transaction() as tx:
        return await action(tx, "orders", *arguments)


async def open_failures(database):
    async with database.transaction() as tx:
        return await projection_failures.read_open(tx, "orders", 1)


async def recorded(database):
    """What is known of the actions of Ada, the last one first."""
    async with database.transaction() as tx:
        found = await operator_audit.read(tx, projection_actions.audited("orders"), 10)
    assert {(each.operator, each.reason) for each in found} == {(ADA.name, ADA.reason)}
    return [(each.action, each.version, each.position) for each in found]


async def test_a_paused_projection_waits_and_continues_from_its_checkpoint(
    events, event_url, database
):
    position = await append_one(events, "order-1", placed())
    both = [orders_projection(), history_projection()]
    async with running_projector(event_url, both) as emitted:
        await wait_for_position(database, "orders", position)
        await act(database, projection_actions.pause, ADA)
        paused = await stored(database, "orders")
        assert (paused.state, paused.owner) == (ProjectionState.PAUSED, None)
        position = await append_one(events, "order-2", placed())
        await wait_for_position(database, "history", position)
        assert (await stored(database, "orders")).position == paused.position
        assert [row[0] for row in await rows(database, "order_by_id")] == ["order-1"]
        await act(database, projection_actions.resume, ADA)
        await wait_for_position(database, "orders", position)
        assert len(emitted.matching(ProjectionAcquired, projection="orders")) == 2
    await check_read_model(database, [each async for each in events.read_all()])
    assert await recorded(database) == [("resume", 1, None), ("pause", 1, None)]


async def test_a_stopped_projection_goes_on_without_a_skipped_event(events, event_url, database):
    data = [placed(), placed("poison"), placed("grace"), placed("poison"), cancelled()]
    for n, each in enumerate(data):
        await append_one(events, f"order-{n}", each)
    last = await events.position()
    async with running_projector(event_url, [orders_projection()]) as emitted:
        for n in range(2):
            stopped = (await emitted.wait_for(ProjectionStopped, n + 1))[n]
            await act(database, projection_actions.skip, stopped.position, ADA)
        await wait_for_position(database, "orders", last)
    read = [each async for each in events.read_all()]
    kept = [each for each in read if each.data.get("customer") != "poison"]
    await check_read_model(database, kept)
    assert await open_failures(database) == []
    async with database.transaction() as tx:
        resolved = await tx.connection.exec_driver_sql(
            "SELECT resolution, resolved_by, reason FROM saga_engine.projection_failure"
        )
        assert {tuple(row) for row in resolved} == {("skipped", ADA.name, ADA.reason)}
    positions = [each.position for each in read if each not in kept]
    assert await recorded(database) == [("skip", 1, each) for each in reversed(positions)]


async def test_a_retry_applies_the_event_after_a_correction(events, event_url, database):
    position = await append_one(events, "order-1", placed("poison"))
    async with running_projector(event_url, [orders_projection()]) as emitted:
        await emitted.wait_for(ProjectionStopped)
        assert await act(database, projection_actions.retry, ADA) == 1
        await emitted.wait_for(ProjectionStopped, 2)
        (failure,) = await open_failures(database)
        assert await recorded(database) == [("retry", 1, None)]
        assert (failure.attempts, failure.parked) == (2, False)
    await act(database, projection_actions.retry, ADA)
    async with running_projector(event_url, [orders_projection(poison="")]):
        await wait_for_position(database, "orders", position)
    await check_read_model(database, [each async for each in events.read_all()])


@pytest.mark.parametrize("skipped", [True, False])
async def test_a_parked_stream_is_caught_up_after_a_retry_or_a_skip(
    events, event_url, database, skipped
):
    data = [placed(), placed("poison"), *[placed("grace")] * 30, cancelled()]
    await append_one(events, "order-1", *data)
    last = await append_one(events, "order-2", placed())
    options: dict[str, Any] = {"on_poison": "park-stream"}
    async with running_projector(event_url, [orders_projection(**options)]) as emitted:
        (parked,) = await emitted.wait_for(StreamParked)
        await wait_for_position(database, "orders", last)
    if skipped:
        await act(database, projection_actions.skip, parked.position, ADA)
        options["poison"] = "poison"
    else:
        await act(database, projection_actions.retry, ADA)
        options["poison"] = ""

    async def caught_up() -> bool:
        async with database.transaction() as tx:
            return not await projection_failures.parked_streams(tx, orders_projection())

    async with running_projector(
        event_url, [orders_projection(**options)], projection_batch_size=7
    ):
        await wait_until_true(caught_up, interval=0.01)
    read = [each async for each in events.read_all()]
    left_out = [parked.position] if skipped else []
    await check_read_model(database, [each for each in read if each.position not in left_out])


async def test_a_retry_reads_the_events_of_its_stream_only(events, event_url, database):
    """Not the positions of all other streams between them."""
    await append_one(events, "order-1", placed("poison"))
    async with running_projector(event_url, [orders_projection(on_poison="park-stream")]) as sent:
        await sent.wait_for(StreamParked)
    async with database.transaction() as tx:
        far = 10**12
        await tx.connection.exec_driver_sql(f"SELECT setval('saga_engine.event_position', {far})")
        await tx.connection.exec_driver_sql(f"UPDATE saga_engine.projection SET position = {far}")
    last = await append_one(events, "order-1", placed())
    await act(database, projection_actions.retry, ADA)
    healthy = orders_projection(on_poison="park-stream", poison="")
    async with running_projector(event_url, [healthy]):

        async def caught_up() -> bool:
            async with database.transaction() as tx:
                return not await projection_failures.parked_streams(tx, healthy)

        async with asyncio.timeout(10):
            await wait_until_true(caught_up, interval=0.01)
            await wait_for_position(database, "orders", last)
    await check_read_model(database, [each async for each in events.read("order-1")])


async def test_a_retry_that_is_under_way_is_named(events, event_url, database):
    await append_one(events, "order-1", placed("poison"))
    async with running_projector(event_url, [orders_projection(on_poison="park-stream")]) as sent:
        await sent.wait_for(StreamParked)
    assert await act(database, projection_actions.retry, ADA) == 1
    with pytest.raises(Conflict, match="are already being retried"):
        await act(database, projection_actions.retry, ADA)


async def test_an_action_that_does_not_fit_is_refused(events, event_url, database):
    with pytest.raises(NotFound, match="There is no projection 'orders'"):
        await act(database, projection_actions.pause, ADA)
    position = await append_one(events, "order-1", placed())
    async with running_projector(event_url, [orders_projection()]):
        await wait_for_position(database, "orders", position)
    with pytest.raises(Conflict, match="can be resumed while it is paused"):
        await act(database, projection_actions.resume, ADA)
    with pytest.raises(Conflict, match="no event of it has failed"):
        await act(database, projection_actions.retry, ADA)
    with pytest.raises(NotFound, match="has no failure at position 7"):
        await act(database, projection_actions.skip, 7, ADA)
    with pytest.raises(Conflict, match="Give the reason"):
        await act(database, projection_actions.skip, 7, Operator("ada", " "))


async def test_an_event_is_not_skipped_over_others_that_were_not_applied(
    events, event_url, database
):
    await append_one(events, "order-1", placed(), placed("poison"))
    async with running_projector(event_url, [orders_projection()]) as emitted:
        (stopped,) = await emitted.wait_for(ProjectionStopped)
    async with database.transaction() as tx:
        await tx.connection.exec_driver_sql("UPDATE saga_engine.projection SET position = 0")
    with pytest.raises(Conflict, match="have not been applied"):
        await act(database, projection_actions.skip, stopped.position, ADA)
    assert len(await open_failures(database)) == 1
