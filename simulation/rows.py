"""Rows of the model of PostgreSQL, and what its statements do with them."""

from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

import orjson

from saga_engine.vocabulary import Status

Row: TypeAlias = dict[str, Any]


RowRef: TypeAlias = tuple[str, Any]
"""The table and the key of a row."""


UNFINISHED = (Status.RUNNING.value, Status.COMPENSATING.value)
"""The statuses of runs that are not finished."""


Arguments: TypeAlias = Mapping[str, Any]
"""The bind parameters of a statement."""


def row_type(names: str) -> Callable[..., Any]:
    """A type of rows whose columns have names, as those of SQLAlchemy."""
    return namedtuple("Row", names)  # noqa: PYI024 - a tuple, as the rows of SQLAlchemy are


def jsonb(text: str) -> str:
    """Normalize JSON as jsonb does: the keys of objects are returned in another order."""
    return orjson.dumps(orjson.loads(text), option=orjson.OPT_SORT_KEYS).decode()


def unnest(columns_by_array: Mapping[str, str], arguments: Mapping[str, Any]) -> Iterable[Row]:
    """Turn parallel arrays into rows; the values of the mapping are their names."""
    arrays = [arguments[column] for column in columns_by_array.values()]
    for values in zip(*arrays, strict=True):
        yield dict(zip(columns_by_array.values(), values, strict=True))


def oldest_age(now: datetime, times: Sequence[datetime]) -> float:
    return (now - min(times)).total_seconds() if times else 0.0


class Result:
    """The result of a statement, with the methods of a SQLAlchemy result."""

    def __init__(self, rows_or_count: Sequence[Any] | int) -> None:
        self._rows = [] if isinstance(rows_or_count, int) else rows_or_count
        self.rowcount = rows_or_count if isinstance(rows_or_count, int) else len(rows_or_count)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def all(self) -> list[Any]:
        return list(self._rows)

    def first(self) -> Any:
        return self._rows[0] if self._rows else None

    one_or_none = first

    def one(self) -> Any:
        [row] = self._rows
        return row

    def scalars(self) -> Iterable[Any]:
        return [row[0] for row in self._rows]

    def scalar_one(self) -> Any:
        return self.one()[0]

    def scalar(self) -> Any:
        return self._rows[0][0] if self._rows else None

    scalar_one_or_none = scalar
