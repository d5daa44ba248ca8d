"""Values of declared changes arrive in PostgreSQL as they are, or are refused with a sentence."""

import re
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import (
    ARRAY,
    JSON,
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
from sqlalchemy.dialects.postgresql import CITEXT, JSONB

from saga_engine.events.change import insert
from saga_engine.events.change_batch import ChangeBatch
from saga_engine.events.change_writer import write_changes
from saga_engine.events.column_types import ValueRefused, column_type
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
    ],
)
def test_a_value_that_would_be_altered_is_refused(kind, value, sentence):
    found = column_type(kind)
    assert found is not None
    with pytest.raises(ValueRefused, match=re.escape(sentence)):
        found.accept(value)


@pytest.mark.parametrize("kind", [ARRAY(Text), CITEXT()])
def test_other_types_are_left_to_sql_handlers(kind):
    assert column_type(kind) is None
