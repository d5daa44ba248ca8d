"""How many rows a listing has in all, counted at a bounded cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saga_engine.postgres.statement import Transaction, text

GROUPS_MAX = 1000
"""
Groups of one gauge that are counted, such as sagas with waiting starts. Each is a time series and
an index scan; an engine has tens of them, and what others write can make more. So it is not a
setting.
"""


@dataclass(frozen=True, slots=True)
class BoundedCount:
    """A number of rows; `exact` is false where there are more and counting stopped."""

    count: int
    exact: bool = True

    @property
    def display(self) -> str:
        """The number, as people read it."""
        return f"{self.count:,}" if self.exact else f"more than {self.count:,}"


async def count_up_to(
    tx: Transaction, query: str, arguments: Mapping[str, Any], count_limit: int
) -> BoundedCount:
    """
    Count the rows of a query, of which no more than *most* and one are looked at.

    Args:
        query: in SQL, from its FROM on.
        arguments: its parameters; it has none of the name `probe_limit`.
    """
    statement = text(f"SELECT count(*) FROM (SELECT {query} LIMIT :probe_limit) AS limited")  # noqa: S608 - ours
    number: int = (
        await tx.execute(statement, {**arguments, "probe_limit": count_limit + 1})
    ).scalar_one()
    return to_bounded_count(number, count_limit)


def to_bounded_count(number: int, count_limit: int) -> BoundedCount:
    """Make a total of a number that is not counted beyond *most* and one."""
    return BoundedCount(min(number, count_limit), exact=number <= count_limit)
