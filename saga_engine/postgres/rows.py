"""The rows that the driver returns for a statement, with the interface of `statement.Rows`."""

from collections.abc import Iterator, Sequence
from typing import Any

import asyncpg


class DriverRow(asyncpg.Record):  # type: ignore[misc]  # asyncpg ships no types
    """A row whose columns are read by position, or by name as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class DriverRows:
    """The rows of a statement, and PostgreSQL's command tag, such as `UPDATE 3`."""

    def __init__(self, rows: Sequence[DriverRow], command_tag: str) -> None:
        self._rows = rows
        self._command_tag = command_tag

    @property
    def rowcount(self) -> int:
        """How many rows were returned, or changed."""
        number = self._command_tag.rpartition(" ")[2]
        return int(number) if number.isdecimal() else len(self._rows)

    def __iter__(self) -> Iterator[DriverRow]:
        return iter(self._rows)

    def all(self) -> Sequence[DriverRow]:
        """Return all rows."""
        return self._rows

    def first(self) -> DriverRow | None:
        """Return the first row; None when there is none."""
        return self._rows[0] if self._rows else None

    def one(self) -> DriverRow:
        """Return the only row."""
        (row,) = self._rows
        return row

    def one_or_none(self) -> DriverRow | None:
        """Return the only row; None when there is none."""
        return self.one() if self._rows else None

    def scalar(self) -> Any:
        """Return the first column of the first row; None when there is none."""
        return self._rows[0][0] if self._rows else None

    def scalar_one(self) -> Any:
        """Return the first column of the only row."""
        return self.one()[0]

    def scalar_one_or_none(self) -> Any:
        """Return the first column of the only row; None when there is none."""
        return self.one()[0] if self._rows else None

    def scalars(self) -> list[Any]:
        """Return the first column of all rows."""
        return [row[0] for row in self._rows]
