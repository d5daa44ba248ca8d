"""A folded batch is written with one statement for each table, kind and set of columns."""

import pytest
from sqlalchemy import Column, Enum, Integer, MetaData, Table, Text

from saga_engine.errors import StoreRefused
from saga_engine.events.projections.change import Change, add, delete, insert, put, upsert
from saga_engine.events.projections.change_batch import ChangeBatch
from saga_engine.events.projections.change_writer import COPY_MIN_ROWS, row_groups, write_changes
from tests.kit.column_values import STORED

METADATA = MetaData(schema='odd "schema"')
ODD = Table(
    "select%",
    METADATA,
    Column("Order", Enum("first", "second", name="which", metadata=METADATA), primary_key=True),
    Column("user", Text, nullable=False),
    Column("total", Integer),
    Column("of 100%", Integer, key="share"),
)


def batch_of(*changes: Change) -> ChangeBatch:
    batch = ChangeBatch()
    assert all(batch.fold(change) for change in changes)
    return batch


def test_a_thousand_rows_are_one_statement():
    table = Table("rows", MetaData(), Column("id", Integer, primary_key=True), Column("n", Integer))
    changes = [upsert(table, key={"id": n % 1000}, add={"n": n}) for n in range(5000)]
    (group,) = row_groups(batch_of(*changes), [table])
    assert (group.kind, group.columns, len(group.rows)) == ("upsert", ((), ("n",)), 1000)


def test_changes_of_other_columns_are_statements_of_their_own():
    first = upsert(ODD, key={"Order": "first"}, put={"user": "a"})
    second = upsert(ODD, key={"Order": "second"}, put={"user": "a"}, add={"total": 1})
    assert len(list(row_groups(batch_of(first, second), [ODD]))) == 2


def test_a_change_that_changes_nothing_needs_no_statement():
    assert list(row_groups(batch_of(put(ODD, key={"Order": "first"}, values={})), [ODD])) == []


async def test_many_inserted_rows_are_the_same_as_a_few(database):
    """They are copied; the values of each type arrive as with a statement."""
    columns = [Column(f"c{n}", kind) for n, (kind, _) in enumerate(STORED)]
    table = Table("typed", MetaData(), Column("id", Integer, primary_key=True), *columns)
    values = {f"c{n}": value for n, (_, value) in enumerate(STORED)}
    numbers = range(COPY_MIN_ROWS)
    copied = batch_of(*(insert(table, key={"id": n}, put=values) for n in numbers))
    async with database.transaction() as tx:
        await tx.connection.run_sync(table.metadata.create_all)
        await write_changes(tx, copied, [table])
        rows = (await tx.connection.execute(table.select().order_by(table.c.id))).all()
    assert [dict(row._mapping) for row in rows] == [{"id": n} | values for n in numbers]
    with pytest.raises(StoreRefused):
        async with database.transaction() as tx:
            await write_changes(tx, copied, [table])


async def test_any_name_of_a_table_or_a_column_is_quoted(database):
    async with database.transaction() as tx:
        await tx.connection.exec_driver_sql('CREATE SCHEMA "odd ""schema"""')
        await tx.connection.run_sync(METADATA.create_all)
        for change in (
            insert(ODD, key={"Order": "first"}, put={"user": "a"}),
            insert(ODD, key={"Order": "second"}, put={"user": "b"}),
            upsert(ODD, key={"Order": "first"}, put={"user": "c"}, add={"total": 2}),
            put(ODD, key={"Order": "first"}, values={"of 100%": 7}),
            add(ODD, key={"Order": "first"}, values={"total": 3}),
            put(ODD, key={"Order": "first"}, values={"user": "d"}),
            delete(ODD, key={"Order": "second"}),
        ):
            await write_changes(tx, batch_of(change), [ODD])
        rows = (await tx.connection.execute(ODD.select())).all()
    assert [tuple(row) for row in rows] == [("first", "d", 5, 7)]
