"""A projection whose tables are missing is refused at start, not at its first event."""

import pytest
from sqlalchemy import Column, Integer, MetaData, Table

from saga_engine.errors import SchemaMismatch
from saga_engine.events.projections.projection import Projection
from saga_engine.events.projections.projector import Projector
from saga_engine.events.projections.table_check import check_tables
from saga_engine.settings import Settings
from tests.kit.events import EventRecorder
from tests.kit.projections import projection_database
from tests.kit.read_model import orders_projection


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
