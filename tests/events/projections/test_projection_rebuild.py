"""A rebuild begins, is discarded, and stops alone; the tables before a switch have their time."""

from typing import Any

import pytest

from saga_engine.errors import Conflict, NotFound
from saga_engine.events.projections import projection_actions, projection_rebuild
from saga_engine.events.projections.projection_table import ProjectionRole, ProjectionState
from saga_engine.events.readers import operator_audit
from saga_engine.events.readers.operator_audit import Action
from saga_engine.telemetry.events import (
    ProjectionStopped,
    ProjectionSwitched,
    ProjectionVersionKept,
    ProjectionVersionReady,
    ProjectionVersionRemoved,
)
from tests.kit.programs import wait_until_true
from tests.kit.projections import (
    append_one,
    append_orders,
    check_read_model,
    placed,
    projection_database,
    running_projector,
)
from tests.kit.read_model import history_projection, orders_projection
from tests.kit.rebuilds import (
    MARA,
    all_events,
    begin,
    rebuilt,
    relations,
    sql,
    switch,
    versions,
    wait_for_all,
    wait_for_registration,
)

EXPIRED = {"projection_previous_retention": 0.001}


@pytest.fixture
async def database(event_url):
    async with projection_database(event_url) as database:
        yield database


async def discard(database):
    async with database.transaction() as tx:
        return await projection_rebuild.discard(tx, "orders", MARA)


async def test_a_rebuild_says_from_which_event_it_is_filled(events, event_url, database):
    await append_orders(events, 3)
    await sql(database, "DELETE FROM saga_engine.stream_event WHERE position < 5")
    async with running_projector(event_url, [orders_projection()]):
        await wait_for_registration(database)
        assert (await begin(database)).from_position == 5


async def test_a_rebuild_is_discarded_with_its_tables_and_its_number(events, event_url, database):
    async with rebuilt(events, event_url, database):
        with pytest.raises(Conflict, match="is being rebuilt as version 2"):
            await begin(database)
        assert await discard(database) == 2
        assert not [each for each in await relations(database) if "~" in each]
        with pytest.raises(NotFound, match="not being rebuilt"):
            await discard(database)
        assert (await begin(database)).version == 3
        await append_orders(events, 5, seed=1)
        await wait_for_all(database, await events.position())
        await switch(database)
    await check_read_model(database, await all_events(events))
    async with database.transaction() as tx:
        actions = await operator_audit.read(tx, projection_actions.audited("orders"), 10)
    assert [(each.action, each.version) for each in actions] == [
        (Action.SWITCH, 3),
        (Action.REBUILD, 3),
        (Action.DISCARD, 2),
        (Action.REBUILD, 2),
    ]


async def test_a_rebuild_is_reported_once_when_it_is_ready_and_when_it_is_live(
    events, event_url, database
):
    """By the process that runs it; what was so before a process started is not reported again."""
    await append_orders(events, 30)
    async with running_projector(event_url, [orders_projection()]) as emitted:
        await wait_for_registration(database)
        await begin(database)
        (ready,) = await emitted.wait_for(ProjectionVersionReady)
        assert (ready.projection, ready.version) == ("orders", 2)
        assert ready.next_command == "saga-engine projections switch orders"
        await switch(database)
        await emitted.wait_for(ProjectionSwitched)
        await switch(database, Action.BACK)
        await emitted.wait_for(ProjectionSwitched, 2)
        await switch(database)
        await emitted.wait_for(ProjectionSwitched, 3)
    switched = emitted.matching(ProjectionSwitched)
    assert [(each.projection, each.version) for each in switched] == [
        ("orders", 2),
        ("orders", 1),
        ("orders", 2),
    ]
    assert len(emitted.matching(ProjectionVersionReady)) == 1


async def test_previous_tables_are_removed_after_their_time(events, event_url, database):
    async with rebuilt(events, event_url, database):
        await switch(database)
    async with running_projector(event_url, [orders_projection()], **EXPIRED) as emitted:
        (removed,) = await emitted.wait_for(ProjectionVersionRemoved)
        assert (removed.projection, removed.version) == ("orders", 1)
        assert [*await versions(database)] == [ProjectionRole.LIVE]
        assert not [each for each in await relations(database) if "~" in each]
        with pytest.raises(NotFound, match="no previous tables"):
            await switch(database, Action.BACK)


async def test_previous_tables_that_a_view_reads_are_kept_and_reported(events, event_url, database):
    async with rebuilt(events, event_url, database):
        await switch(database)
        await sql(database, 'CREATE VIEW old AS SELECT * FROM "order_by_id~1"')
    async with running_projector(event_url, [orders_projection()], **EXPIRED) as emitted:
        (kept,) = await emitted.wait_for(ProjectionVersionKept)
        assert "depend on its tables" in kept.problem
        await sql(database, "DROP VIEW old")
        await emitted.wait_for(ProjectionVersionRemoved)


async def test_an_event_that_the_new_code_cannot_apply_stops_the_rebuild_alone(
    events, event_url, database
):
    await append_one(events, "order-1", placed(), placed("poison"), placed())
    live, newer = orders_projection(poison=""), orders_projection(version=2)
    async with running_projector(event_url, [live]):
        await wait_for_registration(database)
        await begin(database, code_version=2)
        async with running_projector(event_url, [newer]) as emitted:
            (stopped,) = await emitted.wait_for(ProjectionStopped)
            assert stopped.version == 2
            last = await append_one(events, "order-2", placed())

            async def live_goes_on():
                return (await versions(database))[ProjectionRole.LIVE].position >= last

            await wait_until_true(live_goes_on, interval=0.01)
            found = await versions(database)
            assert found[ProjectionRole.LIVE].state == ProjectionState.ACTIVE
            assert found[ProjectionRole.REBUILD].state == ProjectionState.STOPPED
            with pytest.raises(Conflict, match="Version 2 of projection 'orders' is stopped"):
                await switch(database)
            async with database.transaction() as tx:
                await projection_actions.skip(tx, "orders", stopped.position, MARA, version=2)
            await wait_for_all(database, last)
            assert (await switch(database)).version == 2


async def test_a_rebuild_that_parked_more_streams_than_the_live_version_is_not_switched_to(
    events, event_url, database
):
    await append_one(events, "order-1", placed(), placed("poison"))
    options: dict[str, Any] = {"on_poison": "park-stream"}
    live = orders_projection(poison="", **options)
    async with running_projector(event_url, [live]):
        await wait_for_registration(database)
        await begin(database, code_version=2)
        async with running_projector(event_url, [orders_projection(version=2, **options)]):
            await wait_for_all(database, await events.position())
            with pytest.raises(Conflict, match=r"parked 1 streams .* example order-1"):
                await switch(database)


async def test_functions_with_sql_of_their_own_are_not_rebuilt(events, event_url, database):
    async with running_projector(event_url, [history_projection()]):
        await wait_for_registration(database, "history")
        with pytest.raises(Conflict, match="executes SQL of its own"):
            await begin(database, "history")
