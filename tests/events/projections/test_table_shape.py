"""What declared changes must know of a table is read from its declaration."""

from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Numeric, Table, Text
from sqlalchemy.dialects.postgresql import CITEXT, JSONB

from saga_engine.events.projections.table_shape import TableProblem, shape_of


def table(*columns: Column[object]) -> Table:
    return Table("orders", MetaData(schema="shop"), *columns)


def test_a_new_row_needs_the_columns_without_a_default():
    shape = shape_of(
        table(
            Column("id", Text, primary_key=True),
            Column("customer", Text, nullable=False),
            Column("items", Integer, nullable=False, server_default="0"),
            Column("total", Numeric),
        )
    )
    assert shape.name == "shop.orders"
    assert shape.key == ("id",)
    assert shape.required == {"id", "customer"}
    assert shape.summable == {"items", "total"}


def test_columns_have_the_names_of_the_database():
    total: Column[Any] = Column("total_cents", Integer, key="total")
    assert shape_of(table(Column("id", Text, primary_key=True), total)).summable == {"total_cents"}


def test_a_table_with_a_colon_in_its_name_is_refused():
    """It would be read as a parameter."""
    for name, schema in (("a :b", None), ("a", "b:c")):
        odd = Table(name, MetaData(), Column("id", Text, primary_key=True), schema=schema)
        with pytest.raises(TableProblem, match="has a colon in its name"):
            shape_of(odd)


def test_a_shape_is_read_once():
    orders = table(Column("id", Text, primary_key=True))
    assert shape_of(orders) is shape_of(orders)


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        (Column("id", Text), "has no primary key"),
        (Column("id", CITEXT, primary_key=True), "has the type CITEXT"),
        (Column("id", JSONB, primary_key=True), "is JSON"),
        (Column("a:b", Text, primary_key=True), "has a colon in its name"),
        (Column("id", Text, primary_key=True, default="x"), "has a default of SQLAlchemy"),
    ],
)
def test_a_table_whose_rows_no_event_can_name_is_refused(column, problem):
    with pytest.raises(TableProblem, match=problem) as caught:
        shape_of(table(column))
    assert caught.value.fix
