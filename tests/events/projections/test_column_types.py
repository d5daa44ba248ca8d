"""Values of declared changes arrive in PostgreSQL as they are, or are refused with a sentence."""

import re
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import (
    ARRAY,
    CHAR,
    JSON,
    NCHAR,
    REAL,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    Table,
    Text,
    Time,
    Uuid,
)
from sqlalchemy.dialects.postgresql import CITEXT, INTERVAL, JSONB, TIME, TIMESTAMP

from saga_engine.events.projections.change import insert
from saga_engine.events.projections.change_batch import ChangeBatch
from saga_engine.events.projections.change_writer import write_changes
from saga_engine.events.projections.column_types import ValueRefused, column_type
from saga_engine.events.projections.table_shape import TableProblem, shape_of
from tests.kit.column_values import NOON, STORED


async def test_a_value_of_each_type_arrives_unchanged(database):
    columns: list[Column[Any]] = [Column(f"c{n}", kind) for n, (kind, _) in enumerate(STORED)]
    table = Table("typed", MetaData(), Column("id", Integer, primary_key=True), *columns)
    values = {f"c{n}": value for n, (_, value) in enumerate(STORED)}
    batch = ChangeBatch()
    assert batch.fold(insert(table, key={"id": 1}, put=values))
    assert batch.fold(insert(table, key={"id": 2}, put=dict.fromkeys(values)))
    async with database.transaction() as tx:
        await tx.connection.run_sync(table.metadata.create_all)
        await write_changes(tx, batch, [table])
        rows = (await tx.connection.execute(table.select().order_by(table.c.id))).all()
    assert rows[0]._mapping == {"id": 1} | values
    assert rows[1]._mapping == {"id": 2} | dict.fromkeys(values)


@pytest.mark.parametrize(
    ("kind", "value", "sentence"),
    [
        (Integer(), "1", "takes an int"),
        (Integer(), True, "takes an int"),
        (SmallInteger(), 2**15, "takes an int of 16 bits"),
        (Integer(), 2**31, "takes an int of 32 bits"),
        (BigInteger(), -(2**63) - 1, "takes an int of 64 bits"),
        (Numeric(5, 2), 1000, "takes at most 3 digits before the point"),
        (Text(), "a\0b", "takes text without U+0000 and without lone surrogates"),
        (Text(), "\ud800", "takes text without U+0000 and without lone surrogates"),
        (String(3), "abcd", "takes at most 3 characters"),
        (JSONB(), {"a": ["\\\0"]}, "takes JSON without U+0000"),
        (JSONB(), {"a\0": 1}, "takes JSON without U+0000"),
        (JSON(), [float("nan")], "takes what can be written as JSON"),
        (Numeric(10, 2), 0.1, "takes a Decimal or an int"),
        (Numeric(10, 2), Decimal("0.001"), "takes at most 2 digits after the point"),
        (Numeric(10), Decimal("0.1"), "takes at most 0 digits after the point"),
        (Numeric(), Decimal("Infinity"), "takes a finite number"),
        (Float(), "1", "takes a float"),
        (Float(), 2**53 + 1, "takes a float, which an int of this size would not be unchanged"),
        (Float(), float("nan"), "takes a number, not NaN"),
        (Boolean(), 1, "takes a bool"),
        (Text(), 1, "takes a str"),
        (Enum("small", "large", name="size"), "huge", "takes one of large, small"),
        (DateTime(timezone=True), NOON.replace(tzinfo=None), "takes a datetime with a time zone"),
        (DateTime(), NOON, "takes a datetime without a time zone"),
        (Date(), NOON, "takes a date"),
        (Time(), NOON.timetz(), "takes a time without a time zone"),
        (Interval(), 5, "takes a timedelta"),
        (Uuid(), "no", "takes a UUID"),
        (LargeBinary(), "text", "takes bytes"),
        (JSON(), object(), "takes what can be written as JSON"),
        (JSON(), {1: "a"}, "takes JSON: dicts whose keys are texts"),
        (JSONB(), [(1, 2)], "takes JSON: dicts whose keys are texts"),
        (JSONB(), {"a": Decimal("1.0")}, "takes JSON: dicts whose keys are texts"),
        (JSON(), {"a": date(2026, 2, 28)}, "takes JSON: dicts whose keys are texts"),
        (JSON(), {"a": {1}}, "takes JSON: dicts whose keys are texts"),
        (Date(), date.max, "takes no least and no greatest date"),
        (Date(), date.min, "takes no least and no greatest date"),
        (DateTime(), datetime.combine(date.max, time.max), "takes no least and no"),
        (
            DateTime(timezone=True),
            datetime.combine(date.min, time.min, UTC),
            "takes no least and no",
        ),
        (REAL(), 16777217.0, "takes a float of 32 bits"),
        (REAL(), 1e300, "takes a float of 32 bits"),
        (Float(24), 0.1, "takes a float of 32 bits"),
    ],
)
def test_a_value_that_would_be_altered_is_refused(kind, value, sentence):
    found = column_type(kind)
    assert found is not None
    with pytest.raises(ValueRefused, match=re.escape(sentence)):
        found.accept(value)


@pytest.mark.parametrize(
    "kind",
    [
        ARRAY(Text),
        CITEXT(),
        CHAR(3),
        NCHAR(3),
        TIMESTAMP(precision=0),
        TIME(precision=3),
        INTERVAL(precision=0),
        INTERVAL(fields="YEAR TO MONTH"),
        Interval(second_precision=0),
    ],
)
def test_other_types_are_left_to_sql_handlers(kind):
    assert column_type(kind) is None


@pytest.mark.parametrize("kind", [Time(timezone=True), Text(collation="de-x-icu"), JSONB()])
def test_a_key_is_one_row_in_python_and_in_postgresql(kind):
    table = Table("keyed", MetaData(), Column("id", kind, primary_key=True))
    with pytest.raises(TableProblem, match="cannot be part of the primary key"):
        shape_of(table)
