"""How many rows a listing has in all, counted at a bounded cost."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, literal_column, select

from saga_engine.store.database import Transaction

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


async def total(tx: Transaction, query: Select[Any], most: int) -> Total:
    """Count the rows of *query*, of which no more than *most* and one are looked at."""
    one: Select[Any] = query.with_only_columns(literal_column("1"), maintain_column_froms=True)
    some = one.order_by(None).limit(most + 1).subquery()
    number: int = (await tx.execute(select(func.count()).select_from(some))).scalar_one()
    return Total(min(number, most), exact=number <= most)
