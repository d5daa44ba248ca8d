"""Rebuilds of the read model of orders in a test, and switches to them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from saga_engine.events import Events, Recorded
from saga_engine.events.projections import projection_rebuild, projection_table
from saga_engine.events.projections.projection_rebuild import Rebuild
from saga_engine.events.projections.projection_switch import Switch, Switched
from saga_engine.events.projections.projection_table import ProjectionRole, StoredProjection
from saga_engine.events.readers.operator_audit import Action, Operator
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from tests.kit.programs import wait_until_true
from tests.kit.projections import append_orders, running_projector
from tests.kit.read_model import orders_projection

MARA = Operator("mara", "the totals were wrong")
SWITCH, BACK = Action.SWITCH, Action.BACK


async def begin(database: Database, name: str = "orders", **options: Any) -> Rebuild:
    async with database.transaction() as tx:
        return await projection_rebuild.begin(tx, name, MARA, **options)


async def versions(
    database: Database, name: str = "orders"
) -> dict[ProjectionRole, StoredProjection]:
    """The versions by their roles."""
    async with database.transaction() as tx:
        return {each.role: each for each in await projection_table.read(tx, name)}


async def wait_for_all(database: Database, position: int) -> None:
    """Wait until all versions have passed a position."""

    async def passed() -> bool:
        return all(each.position >= position for each in (await versions(database)).values())

    await wait_until_true(passed, interval=0.01)


async def switch(database: Database, action: Action = SWITCH, **settings: Any) -> Switched:
    return await Switch(database, Settings(**settings), MARA).run("orders", action)


async def wait_until_ready(database: Database) -> None:
    """Wait until a rebuild can be switched to."""

    async def is_ready() -> bool:
        found = await versions(database)
        rebuild = found.get(ProjectionRole.REBUILD)
        return bool(
            rebuild
            and rebuild.has_tables
            and rebuild.position + 1_000 >= found[ProjectionRole.LIVE].position
        )

    await wait_until_true(is_ready, interval=0.02, patience=180.0)


async def sql(database: Database, *statements: str) -> None:
    async with database.transaction() as tx:
        for statement in statements:
            await tx.connection.exec_driver_sql(statement)


async def sql_rows(database: Database, query: str) -> list[tuple[Any, ...]]:
    async with database.transaction() as tx:
        return [tuple(row) for row in await tx.connection.exec_driver_sql(query)]


async def relations(database: Database) -> list[str]:
    """The names of all tables and indexes of the service."""
    query = (
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'i')"
        " AND relnamespace = 'public'::regnamespace ORDER BY 1"
    )
    async with database.transaction() as tx:
        return [*(await tx.connection.exec_driver_sql(query)).scalars()]


async def rows_as_text(database: Database, table: str) -> list[str]:
    """The rows of a table, as PostgreSQL writes them."""
    query = f'SELECT t::text FROM "{table}" AS t ORDER BY 1'
    async with database.transaction() as tx:
        return [*(await tx.connection.exec_driver_sql(query)).scalars()]


async def check_a_replay(database: Database, events: Events) -> None:
    """Compare the live tables with those of another rebuild, byte for byte."""
    version = (await begin(database)).version
    await wait_for_all(database, await events.position())
    for table in ("orders_by_customer", "order_by_id"):
        live = await rows_as_text(database, table)
        assert live == await rows_as_text(database, f"{table}~{version}")
        assert live


@asynccontextmanager
async def rebuilt(events: Events, event_url: str, database: Database) -> AsyncIterator[None]:
    """A projection with a wrong live row, and a rebuild that has all events."""
    await append_orders(events, 30)
    async with running_projector(event_url, [orders_projection()]):
        await wait_for_registration(database)
        await wait_for_all(database, await events.position())
        await sql(database, "UPDATE orders_by_customer SET total = -1")
        await begin(database)
        await wait_for_all(database, await events.position())
        yield


async def wait_for_registration(database: Database, name: str = "orders") -> None:
    """Wait until a projector has registered a projection."""

    async def registered() -> bool:
        return bool(await versions(database, name))

    await wait_until_true(registered, interval=0.01)


async def all_events(events: Events) -> list[Recorded]:
    return [each async for each in events.read_all()]
