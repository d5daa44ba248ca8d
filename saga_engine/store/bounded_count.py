"""How many rows a listing has in all, counted at a bounded cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saga_engine.postgres.statement import Transaction, text

GROUPS = 1000
"""
Groups of one gauge that are counted, such as sagas with waiting starts. Each is a time series and
an index scan; an engine has tens of them, and what others write can make more. So it is not a
setting.
"""


@dataclass(frozen=True, slots=True)
class Total:
    """A number of rows; `exact` is false where there are more and counting stopped."""

    number: int
    exact: bool = True

    @property
    def text(self) -> str:
        """The number, as people read it."""
        return f"{self.number:,}" if self.exact else f"more than {self.number:,}"


async def total(tx: Transaction, query: str, arguments: Mapping[str, Any], most: int) -> Total:
    """
    Count the rows of a query, of which no more than *most* and one are looked at.

    Args:
        query: in SQL, from its FROM on.
        arguments: its parameters; it has none of the name `more`.
    """
    counted = text(f"SELECT count(*) FROM (SELECT {query} LIMIT :more) AS few")  # noqa: S608 - ours
    number: int = (await tx.execute(counted, {**arguments, "more": most + 1})).scalar_one()
    return total_of(number, most)


def total_of(number: int, most: int) -> Total:
    """Make a total of a number that is not counted beyond *most* and one."""
    return Total(min(number, most), exact=number <= most)
