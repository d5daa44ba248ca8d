"""Copies of tables have names of their own, and refer to each other."""

import pytest
from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

from saga_engine.events.projections import projection_table
from saga_engine.events.projections.projection import Projection
from saga_engine.events.projections.projection_table import ProjectionRole
from saga_engine.events.projections.projection_version import ProjectionVersion
from saga_engine.events.projections.shadow_tables import (
    TableName,
    create_missing,
    drop,
    rebuild_problem,
    shadow_copies,
)
from saga_engine.events.projections.table_exchange import exchange_tables
from tests.kit.projections import projection_database
from tests.kit.rebuilds import begin, sql_rows

METADATA = MetaData(naming_convention={"ix": "%(table_name)s_by_%(column_0_name)s"})
ORDER = Table("order", METADATA, Column("id", Text, primary_key=True))
ITEM = Table(
    "item",
    METADATA,
    Column("order", ForeignKey("order.id"), primary_key=True),
    Column("number", Integer, CheckConstraint("number > 0"), primary_key=True),
    Column("code", Text, index=True),
    UniqueConstraint("order", "code"),
    UniqueConstraint("code", "number", name="item_code"),
)
Index("Item Index", ITEM.c.code)
NAMES = """
SELECT relname, relkind::text FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relname ~* 'item|^order($|_pkey|~)'
UNION ALL
SELECT conname, contype::text FROM pg_constraint WHERE conrelid = to_regclass('item')
ORDER BY 1, 2"""


def test_a_copy_has_names_with_the_version():
    copies = shadow_copies([ORDER, ITEM], 2)
    item = copies[ITEM]
    assert (item.schema, item.name) == (None, "item~2")
    assert {str(each.name) for each in item.indexes} == {"item_by_code~2", "Item Index~2"}
    assert {each.name for each in item.constraints} == {None, "item_code~2"}
    (key,) = item.foreign_keys
    assert key.column.table is copies[ORDER]
    assert {each.name for each in ITEM.constraints} == {None, "item_code"}


async def test_all_names_are_exchanged_and_nothing_else_has_changed(event_url):
    """Of tables, indexes and constraints: those that are declared, and PostgreSQL's own."""
    projection = Projection("orders", version=1, tables=[ORDER, ITEM])
    async with projection_database(event_url) as database:
        async with database.transaction() as tx:
            await tx.connection.run_sync(METADATA.create_all)
            await projection_table.register(tx, [projection])
        before = await sql_rows(database, NAMES)
        await begin(database)
        async with database.transaction() as tx:
            version = ProjectionVersion(projection, 2)
            await create_missing(tx, version, shadow_copies(projection.tables, 2))
            live = await projection_table.lock_role(tx, "orders", ProjectionRole.LIVE)
            other = await projection_table.lock_role(tx, "orders", ProjectionRole.REBUILD)
            assert live
            assert other
            await exchange_tables(tx, live, other, 1.0)
            await drop(tx, live, [TableName(None, "order"), TableName(None, "item")])
        assert await sql_rows(database, NAMES) == before


@pytest.mark.parametrize(
    ("tables", "problem"),
    [
        ([ORDER, ITEM], None),
        ([ITEM], "item refers to order, which is not one of its tables."),
        ([Table("t" * 60, MetaData(), Column("id", Text, primary_key=True))], "is too long"),
        (
            [
                Table(
                    "parts",
                    MetaData(),
                    Column("id", Text, primary_key=True),
                    postgresql_partition_by="HASH (id)",
                )
            ],
            "parts is partitioned or inherits",
        ),
    ],
)
def test_what_cannot_be_rebuilt_is_said(tables, problem):
    found = rebuild_problem(Projection("orders", version=1, tables=tables))
    assert found is None if problem is None else problem in (found or "")
