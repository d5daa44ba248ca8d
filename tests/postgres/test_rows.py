"""The rows of a statement, read by position, by name and as scalars."""

import pytest

from saga_engine.postgres import pgbouncer
from saga_engine.postgres.rows import DriverRow, DriverRows
from saga_engine.postgres.statement import text
from saga_engine.postgres.url import parse_database_url

TWO_ROWS = text("SELECT n, n * 2 AS twice FROM generate_series(1, 2) AS n")


async def select(url: str, sql: str) -> DriverRows:
    connection = await pgbouncer.connect(**parse_database_url(url).connect_arguments())
    try:
        return await connection.execute_statement(text(sql))
    finally:
        await connection.close()


async def test_columns_are_read_by_position_and_by_name(database_url: str):
    rows = await select(database_url, TWO_ROWS.sql)
    first = rows.first()
    assert isinstance(first, DriverRow)
    assert (first[1], first.twice) == (2, 2)
    with pytest.raises(AttributeError):
        _ = first.other
    assert [tuple(row) for row in rows] == [(1, 2), (2, 4)]
    assert (rows.rowcount, rows.scalars(), rows.scalar()) == (2, [1, 2], 1)
    with pytest.raises(ValueError, match="unpack"):
        rows.one()


async def test_no_rows_are_none(database_url: str):
    rows = await select(database_url, "SELECT 1 WHERE false")
    assert rows.first() is rows.scalar() is rows.one_or_none() is rows.scalar_one_or_none() is None
    assert list(rows.all()) == []


@pytest.mark.parametrize(("tag", "count"), [("UPDATE 3", 3), ("INSERT 0 2", 2), ("BEGIN", 0)])
def test_the_number_of_changed_rows_is_in_the_command_tag(tag: str, count: int):
    assert DriverRows([], tag).rowcount == count
