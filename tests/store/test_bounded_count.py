"""Counts that end at a limit."""

import pytest

from saga_engine.store.bounded_count import BoundedCount, count_up_to, to_bounded_count
from saga_engine.store.database import Database


@pytest.mark.parametrize(
    ("number", "expected", "display"),
    [
        (0, BoundedCount(0), "0"),
        (1000, BoundedCount(1000), "1,000"),
        (1001, BoundedCount(1000, exact=False), "more than 1,000"),
    ],
)
def test_a_count_beyond_the_limit_is_not_exact(number: int, expected: BoundedCount, display: str):
    found = to_bounded_count(number, 1000)
    assert (found, found.display) == (expected, display)


async def test_the_rows_of_a_query_are_counted_up_to_the_limit(database: Database):
    query = "FROM generate_series(1, CAST(:rows AS integer))"
    async with database.transaction() as tx:
        assert await count_up_to(tx, query, {"rows": 3}, 3) == BoundedCount(3)
        assert await count_up_to(tx, query, {"rows": 4}, 3) == BoundedCount(3, exact=False)
