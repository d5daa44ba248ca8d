"""
What commands print: one JSON document, or lines for people.

stdout is data and stderr is talk. On a terminal a table is drawn in its width; elsewhere its cells
are separated by tabs, without colour, so that cut and awk can read it. The names in a document are
stable: fields are added, never renamed or removed, while `schema_version` stays the same.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from shutil import get_terminal_size
from typing import Annotated, Any

import orjson
from cyclopts import Parameter

from saga_engine.cli import standard_streams
from saga_engine.cli.table_layout import FOLD_WIDTH, layout_table, wrap_text

SCHEMA_VERSION = 1
UNFOLDED_COLUMNS = frozenset({"run", "incident", "id", "example", "setting"})
"""Columns of ids and names, which are never folded: a person copies them."""

# Beyond those that JSON escapes anyway: DEL and C1, separators, direction marks and overrides. They
# can only be inside a text, and mean the same when they are escaped.
_UNSAFE_CHARACTERS = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")

_NON_ASCII = re.compile("[^\x00-\x7e]")
"""What is escaped for an output that cannot hold every character."""

AsJson = Annotated[bool, Parameter(name="--json", help="Print one JSON document instead.")]


def print_json(fields: Mapping[str, Any]) -> None:
    """Print one document; times become RFC 3339."""
    encoded = orjson.dumps({"schema_version": SCHEMA_VERSION, **fields}, option=orjson.OPT_UTC_Z)
    escaped_characters = _UNSAFE_CHARACTERS if _is_unicode(sys.stdout.encoding) else _NON_ASCII
    print_line(escaped_characters.sub(_escape_match, encoded.decode()))


def print_line(text: str) -> None:
    """Print one line of data."""
    print(text)  # noqa: T201 - the command line speaks


def print_stderr(text: str) -> None:
    """Say something to whoever sits there; it is no data."""
    standard_streams.write_stderr(text)


def _is_unicode(encoding: str | None) -> bool:
    return (encoding or "utf-8").lower().replace("-", "").startswith(("utf8", "utf16", "utf32"))


def _escape_match(matched: re.Match[str]) -> str:
    """Escape a character as JSON does: beyond the first plane in two halves."""
    units = matched[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
    """Print rows, or say on stderr that there are none."""
    if not rows:
        print_stderr(empty)
        return
    cells = [[format_cell(value) for value in row] for row in rows]
    if not sys.stdout.isatty():
        for each in (columns, *cells):
            print_line("\t".join(each))
        return
    for rendered in layout_table(columns, cells, get_terminal_size().columns, UNFOLDED_COLUMNS):
        print_line(rendered)


def print_field(name: str, value: object, *, label_width: int = 12) -> None:
    """Print a name and its value; on a terminal a long value is folded beside its name."""
    text, value_width = format_cell(value), get_terminal_size().columns - label_width - 1
    lines = (
        wrap_text(text, value_width)
        if sys.stdout.isatty() and value_width >= FOLD_WIDTH
        else [text]
    )
    print_line(f"{name:{label_width}} {lines[0]}")
    for each in lines[1:]:
        print_line(f"{'':{label_width}} {each}")


def format_cell(value: object) -> str:
    """Write one value on one line, without control characters: others chose what is in it."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    text = value if isinstance(value, str) else str(value)
    return "".join(each if each.isprintable() else " " for each in text)
