"""
One page of a listing: its rows, the total, and the command for the next page.

A page starts after the last row of the previous page (keyset pagination). So a later page costs no
more than the first, and rows that are added meanwhile do not move others to another page.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from saga_engine.cli.output import format_cell, print_stderr
from saga_engine.errors import ConfigurationError
from saga_engine.store.bounded_count import BoundedCount

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """
    One page of a listing.

    `total` is None if counting would read every row. `has_more`: more rows follow.
    """

    rows: Sequence[Row]
    total: BoundedCount | None
    has_more: bool


def check_limit(limit: int, maximum: int) -> None:
    """
    Check the number of rows in a page.

    Raises:
        ConfigurationError: it is not from 1 to *maximum*.
    """
    if not 1 <= limit <= maximum:
        raise ConfigurationError(f"--limit is 1 to {maximum}. --after shows the next page.")


def make_page(rows: Sequence[Row], limit: int, total: BoundedCount | None) -> Page[Row]:
    """Make a page of *limit* rows; *rows* has one more if more rows follow."""
    return Page(rows[:limit], total, len(rows) > limit)


def page_json(page: Page[Any], cursor: str | int | None) -> dict[str, Any]:
    """Return the fields of a document that describe its page; *cursor* names the last row."""
    return {
        "total": page.total.count if page.total else None,
        "total_exact": page.total.exact if page.total else None,
        "next": cursor if page.has_more else None,
    }


def print_page_summary(
    page: Page[Any], noun: str, command: Sequence[str], cursor: str | int | None
) -> None:
    """
    Print to stderr how many rows are shown, the total, and the command for the next page.

    Args:
        noun: what the rows are, in the plural.
        command: the command line of this page, without --after.
    """
    if not page.rows:
        return
    of_total = f" of {page.total.display}" if page.total else ""
    is_one = len(page.rows) == 1 and not of_total
    text = f"{len(page.rows)}{of_total} {noun.removesuffix('s') if is_one else noun}."
    if page.has_more and cursor is not None:
        text += f" Next page: {command_line(*command, '--after', str(cursor))}"
    print_stderr(format_cell(text))


def command_line(*words: str) -> str:
    """Quote a command so that it can be pasted into a shell."""
    return shlex.join(["saga-engine", *words])


def option_words(option_values: Mapping[str, object]) -> list[str]:
    """Return options as words of a command line; None and False are options that were not given."""
    words: list[str] = []
    for name, value in option_values.items():
        if value is True:
            words.append(name)
        elif value is not None and value is not False:
            words += [name, str(value)]
    return words
