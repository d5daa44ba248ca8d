"""A change that its table cannot have is refused at the line that makes it."""

import sys
from decimal import Decimal

import pytest
from sqlalchemy import (
    ARRAY,
    Column,
    Float,
    Identity,
    Integer,
    MetaData,
    Numeric,
    Table,
    Text,
    func,
    text,
)

from saga_engine.errors import DefinitionError
from saga_engine.events.projections.change import ChangeKind, add, delete, insert, put, upsert

CUSTOMERS = Table(
    "customers",
    MetaData(),
    Column("region", Text, primary_key=True),
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("orders", Integer, nullable=False, server_default=text("0")),
    Column("total", Numeric(10, 2), server_default="0.00"),
    Column("credit", Integer, server_default="100"),
    Column("rating", Float),
    Column("tags", ARRAY(Text)),
    Column("number", Integer, Identity()),
    Column("made_at", Text, default=func.now()),
)
KEY = {"id": 1, "region": "eu"}


def test_a_change_keeps_the_key_in_the_order_of_the_table():
    change = upsert(CUSTOMERS, key=KEY, put={"name": "Ada"}, add={"orders": 1, "total": 5})
    assert (change.kind, change.key) == (ChangeKind.UPSERT, ("eu", 1))
    assert (change.put, change.add) == ({"name": "Ada"}, {"orders": 1, "total": Decimal(5)})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda: delete(CUSTOMERS, key={"id": 1}), "the primary key is id, region"),
        (lambda: put(CUSTOMERS, key=KEY | {"name": "x"}, values={}), "the primary key is"),
        (lambda: put(CUSTOMERS, key=KEY, values={"surname": "x"}), "has no column 'surname'"),
        (lambda: put(CUSTOMERS, key=KEY, values={"id": 2}), "part of its primary key"),
        (lambda: put(CUSTOMERS, key=KEY, values={"name": None}), "NOT NULL, and got None"),
        (lambda: put(CUSTOMERS, key=KEY, values={"name": 1}), "takes a str, and got int"),
        (lambda: put(CUSTOMERS, key=KEY, values={"tags": []}), "has the type ARRAY"),
        (lambda: put(CUSTOMERS, key=KEY, values={"number": 1}), "gets its value from PostgreSQL"),
        (lambda: put(CUSTOMERS, key=KEY, values={"made_at": ""}), "has a default of SQLAlchemy"),
        (lambda: delete(CUSTOMERS, key={"id": None, "region": ""}), "NOT NULL, and got None"),
        (lambda: add(CUSTOMERS, key=KEY, values={"rating": 1.5}), "cannot be added to"),
        (lambda: add(CUSTOMERS, key=KEY, values={"credit": 1}), "cannot be added to"),
        (lambda: add(CUSTOMERS, key=KEY, values={"name": 1}), "cannot be added to"),
        (lambda: add(CUSTOMERS, key=KEY, values={"orders": None}), "None cannot be added"),
        (lambda: insert(CUSTOMERS, key=KEY, put={}), "needs name, which the change lacks"),
        (lambda: upsert(CUSTOMERS, key=KEY, add={"orders": 1}), "needs name, which the change"),
        (
            lambda: upsert(CUSTOMERS, key=KEY, put={"name": "", "total": 1}, add={"total": 1}),
            "both in put and in add",
        ),
    ],
)
def test_a_change_that_breaks_a_rule_names_its_line(change, problem):
    with pytest.raises(DefinitionError, match=problem) as caught:
        change()
    file, _, line = caught.value.location.rpartition(":")
    assert file == __file__
    assert abs(int(line) - change.__code__.co_firstlineno) <= 1


def test_a_row_that_exists_is_changed_without_its_required_columns():
    assert put(CUSTOMERS, key=KEY, values={"orders": 1}).kind is ChangeKind.UPDATE
    assert add(CUSTOMERS, key=KEY, values={"orders": -1, "total": Decimal("-0.5")}).add


def test_a_change_takes_a_few_microseconds_of_python_calls():
    """A rebuild makes millions, so what it costs must not grow with the table."""
    calls = 0

    def count(_frame, event, _argument):
        nonlocal calls
        calls += event == "call"

    upsert(CUSTOMERS, key=KEY, put={"name": "Ada"})
    sys.setprofile(count)
    try:
        upsert(CUSTOMERS, key=KEY, put={"name": "Ada"})
    finally:
        sys.setprofile(None)
    assert calls < 30


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda: delete("customers", key=KEY), "got str instead of a table"),  # type: ignore[arg-type]
        (lambda: delete(CUSTOMERS, key=1), "customers got int instead of a dict"),  # type: ignore[arg-type]
        (lambda: put(CUSTOMERS, key=KEY, values=["name"]), "got list instead of a dict"),  # type: ignore[arg-type]
        (
            lambda: put(CUSTOMERS, key=KEY, values={"orders": 2**40}),
            "takes an int of 32 bits, and got an int that is larger. Bound it in the function, or",
        ),
    ],
)
def test_an_argument_that_is_not_what_it_should_be_is_refused_at_the_line_of_the_call(
    change, problem
):
    with pytest.raises(DefinitionError, match=problem) as caught:
        change()
    assert caught.value.location == f"{__file__}:{change.__code__.co_firstlineno}"
