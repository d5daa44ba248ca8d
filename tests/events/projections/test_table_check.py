"""A projection whose tables are missing is refused at start, not at its first event."""

import asyncio

import pytest
from sqlalchemy import Column, Integer, MetaData, Table

from saga_engine.errors import DefinitionError, SchemaMismatch
from saga_engine.events.projections import projection_table
from saga_engine.events.projections.projection import Projection
from saga_engine.events.projections.projector import Projector
from saga_engine.events.projections.table_check import check_tables, wait_for_turn
from saga_engine.settings import Settings
from tests.kit.events import EventRecorder
from tests.kit.programs import wait_until_true
from tests.kit.projections import projection_database
from tests.kit.read_model import Placed, orders_projection


@pytest.fixture
async def database(event_url):
    async with projection_database(event_url) as database:
        yield database


async def change(database, sql):
    async with database.transaction() as tx:
        await tx.connection.exec_driver_sql(sql)


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("DROP TABLE order_by_id", "Table order_by_id of projection 'orders' does not exist in"),
        ("ALTER TABLE order_by_id DROP customer", "has no column customer in the database"),
    ],
)
async def test_a_projector_refuses_to_start_without_a_table(event_url, database, sql, problem):
    await change(database, sql)
    with pytest.raises(SchemaMismatch, match=problem):
        async with Projector([orders_projection()], event_url, Settings(), EventRecorder()):
            pass


async def test_names_are_those_of_sqlalchemy(database):
    await change(database, 'CREATE SCHEMA "My""Shop"')
    await change(database, 'CREATE TABLE "My""Shop"."100%" ("Total" int PRIMARY KEY)')
    table = Table("100%", MetaData(), Column("Total", Integer, primary_key=True), schema='My"Shop')
    async with database.transaction() as tx:
        await check_tables(tx, [Projection("named", version=1, tables=[table])])


def of_table(name: str, *tables: Table) -> Projection:
    projection = Projection(name, version=1, tables=tables)

    @projection.on(Placed)
    def ignore(event, recorded) -> None:
        return None

    return projection


def the_table(schema: str | None = None) -> Table:
    return Table("numbers", MetaData(), Column("id", Integer, primary_key=True), schema=schema)


@pytest.mark.parametrize("names", [("a", "b"), ("a", "a")])
async def test_two_names_of_one_table_are_refused(event_url, database, names):
    """Only the search_path of the database says that they are: both would write its rows."""
    await change(database, "CREATE TABLE numbers (id int PRIMARY KEY)")
    declared: dict[str, list[Table]] = {}
    for name, schema in zip(names, (None, "public"), strict=True):
        declared.setdefault(name, []).append(the_table(schema))
    projections = [of_table(name, *tables) for name, tables in declared.items()]
    problem = f"{names[1]!r} writes table public.numbers, which is the table numbers of projection"
    with pytest.raises(DefinitionError, match=problem):
        async with Projector(projections, event_url, Settings(), EventRecorder()):
            pass


async def test_a_table_that_a_projection_of_another_process_writes_is_refused(event_url, database):
    await change(database, "CREATE TABLE numbers (id int PRIMARY KEY)")
    await change(database, "CREATE SCHEMA other CREATE TABLE numbers (id int PRIMARY KEY)")
    first = [of_table("a", the_table()), of_table("c", the_table("other"))]
    async with Projector(first, event_url, Settings(), EventRecorder()):
        pass
    with pytest.raises(DefinitionError, match=r"the table numbers of projection 'a'\. Give each"):
        async with Projector([of_table("b", the_table())], event_url, Settings(), EventRecorder()):
            pass
    async with Projector(first, event_url, Settings(), EventRecorder()):
        pass  # the refused one has left nothing


async def test_of_two_that_start_at_once_the_second_is_refused(event_url, database):
    await change(database, "CREATE TABLE numbers (id int PRIMARY KEY)")
    second = Projector([of_table("b", the_table())], event_url, Settings(), EventRecorder())

    async def start_second() -> None:
        with pytest.raises(
            DefinitionError, match=r"the table numbers of projection 'a'\. Give each"
        ):
            async with second:
                pass

    async with asyncio.TaskGroup() as tasks, database.transaction() as tx:
        await wait_for_turn(tx)
        await projection_table.register(tx, [of_table("a", the_table())])
        tasks.create_task(start_second())
        await wait_until_true(lambda: waits_for_turn(database))


async def waits_for_turn(database) -> bool:
    waiting = """
        SELECT count(*) FROM pg_locks JOIN pg_database AS d ON d.oid = database
        WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"""
    async with database.transaction() as tx:
        result = await tx.connection.exec_driver_sql(waiting)
        return bool(result.scalar_one() == 1)
