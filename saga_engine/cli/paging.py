"""
One page of a listing: how many of how many it shows, and the command for the next page.

Pages are found by the last row of the page before (keyset pagination), so a later page costs no
more than the first, and what is added meanwhile moves no row from one page to another.
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
    Some rows of a listing.

    `total` is None where counting would read every row. `following` is whether more rows follow.
    """

    rows: Sequence[Row]
    total: BoundedCount | None
    has_more: bool


def check_limit(limit: int, maximum: int) -> None:
    """
    Check the number of rows of a page.

    Raises:
        ConfigurationError: it is not from 1 to *most*.
    """
    if not 1 <= limit <= maximum:
        raise ConfigurationError(f"--limit is 1 to {maximum}. --after shows the next page.")


def make_page(rows: Sequence[Row], limit: int, total: BoundedCount | None) -> Page[Row]:
    """Make a page of *limit* rows; *found* has one more where more rows follow."""
    return Page(rows[:limit], total, len(rows) > limit)


def page_json(page: Page[Any], cursor: str | int | None) -> dict[str, Any]:
    """Write what a document says of its page; *cursor* names the last row."""
    return {
        "total": page.total.count if page.total else None,
        "total_exact": page.total.exact if page.total else None,
        "next": cursor if page.has_more else None,
    }


def print_page_summary(
    page: Page[Any], noun: str, command: Sequence[str], cursor: str | int | None
) -> None:
    """
    Say on stderr how many of how many are shown, and how to see the next.

    Args:
        noun: what the rows are, in the plural.
        command: the command line of this page, without its cursor.
    """
    if not page.rows:
        return
    of_total = f" of {page.total.display}" if page.total else ""
    text = f"{len(page.rows)}{of_total} {noun}."
    if page.has_more and cursor is not None:
        text += f" Next page: {command_line(*command, '--after', str(cursor))}"
    print_stderr(format_cell(text))


def command_line(*words: str) -> str:
    """Write a command as a person can copy it to a shell."""
    return shlex.join(["saga-engine", *words])


def option_words(option_values: Mapping[str, object]) -> list[str]:
    """The options that were given, as words of a command line: None and False were not."""
    words: list[str] = []
    for name, value in option_values.items():
        if value is True:
            words.append(name)
        elif value is not None and value is not False:
            words += [name, str(value)]
    return words
