"""How many rows a listing has, counted at a bounded cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saga_engine.postgres.statement import Transaction, text

GROUPS_MAX = 1000
"""
Groups of one gauge that are counted, such as sagas with pending starts. Each is a time series and
an index scan. An engine has tens of them; rows of other roles could add more. So this is a bound
and not a setting.
"""


@dataclass(frozen=True, slots=True)
class BoundedCount:
    """A number of rows; `exact` is False when counting stopped at the limit."""

    count: int
    exact: bool = True

    @property
    def display(self) -> str:
        """The number for a person, such as `more than 1,000`."""
        return f"{self.count:,}" if self.exact else f"more than {self.count:,}"


async def count_up_to(
    tx: Transaction, query: str, arguments: Mapping[str, Any], count_limit: int
) -> BoundedCount:
    """
    Count the rows of a query; at most *count_limit* and one are read.

    Args:
        query: SQL from its FROM on.
        arguments: its parameters, without one named `probe_limit`.
    """
    statement = text(f"SELECT count(*) FROM (SELECT {query} LIMIT :probe_limit) AS limited")  # noqa: S608 - ours
    number: int = (
        await tx.execute(statement, {**arguments, "probe_limit": count_limit + 1})
    ).scalar_one()
    return to_bounded_count(number, count_limit)


def to_bounded_count(number: int, count_limit: int) -> BoundedCount:
    """Make a count of a number that was counted up to *count_limit* and one."""
    return BoundedCount(min(number, count_limit), exact=number <= count_limit)
