"""One process has a projection, and only that one can move it, from the stored position."""

from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.errors import SchemaMismatch
from saga_engine.events import Projection, Recorded
from saga_engine.events.projections import projection_table
from saga_engine.events.projections.projection_table import ProjectionState
from tests.kit.projections import projection_database, stored
from tests.kit.read_model import history_projection, orders_projection
from tests.kit.rebuilds import begin

ORDERS = orders_projection()
ACTIVE = [ProjectionState.ACTIVE]


@pytest.fixture
async def database(event_url):
    async with projection_database(event_url) as database:
        async with database.transaction() as tx:
            await projection_table.register(tx, [ORDERS])
        yield database


async def acquire(database, owner: str, lease: float = 60.0) -> int | None:
    async with database.transaction() as tx:
        return await projection_table.acquire(tx, ORDERS, owner, lease)


async def test_registering_again_keeps_the_position(database):
    async with database.transaction() as tx:
        await projection_table.save(tx, ORDERS, 7, "a", 60.0)
    async with database.transaction() as tx:
        await projection_table.register(tx, [ORDERS, history_projection()])
        assert [(each.name, each.position) for each in await projection_table.read(tx)] == [
            ("history", 0),
            ("orders", 7),
        ]


async def test_another_version_is_refused_while_the_tables_are_of_the_first(database):
    newer = orders_projection(version=2)
    with pytest.raises(SchemaMismatch, match="has version 1 in the database and version 2 in"):
        async with database.transaction() as tx:
            await projection_table.register(tx, [newer])


async def test_an_error_of_older_code_names_the_version_to_start(database):
    async with database.transaction() as tx:
        await projection_table.register(tx, [Projection("totals", version=3, tables=ORDERS.tables)])
    older = r"code is older: start the code of version 3. .* `.* switch totals --back`"
    with pytest.raises(SchemaMismatch, match=older):
        async with database.transaction() as tx:
            await projection_table.register(
                tx, [Projection("totals", version=2, tables=ORDERS.tables)]
            )


async def test_code_that_cannot_fill_the_tables_of_a_rebuild_is_refused(database):
    newer = Projection("orders", version=2, tables=ORDERS.tables)

    @newer.on("order-placed")
    async def placed(data: Any, recorded: Recorded, connection: AsyncConnection) -> None: ...

    async with database.transaction() as tx:
        with pytest.raises(SchemaMismatch, match="or fill the tables by hand: Stop the proj"):
            await projection_table.register(tx, [newer])
    await begin(database, code_version=2)
    async with database.transaction() as tx:
        with pytest.raises(SchemaMismatch, match=r"Its function placed executes SQL .* --discard"):
            await projection_table.register(tx, [newer])


async def test_a_lease_ends_with_its_time_or_with_its_release(database):
    assert await acquire(database, "a") == 0
    assert await acquire(database, "a") == 0
    assert await acquire(database, "b") is None
    assert (await stored(database, "orders")).owner == "a"
    async with database.transaction() as tx:
        await projection_table.release(tx, [ORDERS], "b")
    assert await acquire(database, "b") is None
    async with database.transaction() as tx:
        await projection_table.release(tx, [ORDERS], "a")
    assert await acquire(database, "b", lease=-1) == 0
    assert (await stored(database, "orders")).owner is None
    assert await acquire(database, "c") == 0


async def test_only_an_active_projection_has_an_owner(database):
    await acquire(database, "a")
    async with database.transaction() as tx:
        assert await projection_table.set_state(tx, ORDERS, ProjectionState.PAUSED, ACTIVE)
        assert not await projection_table.set_state(tx, ORDERS, ProjectionState.STOPPED, ACTIVE)
    assert await acquire(database, "b") is None
    async with database.transaction() as tx:
        assert not await projection_table.lock(tx, ORDERS, 0, "a")


async def test_a_projection_is_locked_at_its_position_by_its_owner_only(database):
    await acquire(database, "a")
    async with database.transaction() as tx:
        assert not await projection_table.lock(tx, ORDERS, 1, "a")
        assert not await projection_table.lock(tx, ORDERS, 0, "b")
        assert await projection_table.lock(tx, ORDERS, 0, "a")
        await projection_table.save(tx, ORDERS, 5, "a", 60.0)
    async with database.transaction() as tx:
        assert not await projection_table.lock(tx, ORDERS, 0, "a")
        assert await projection_table.lock(tx, ORDERS, 5, "a")
