"""
What commands print: one JSON document, or lines for people.

stdout is data and stderr is talk. On a terminal a table is drawn; elsewhere its cells are separated
by tabs, without colour, so that cut and awk can read it. The names in a document are stable: fields
are added, never renamed or removed, while `schema_version` stays the same.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import orjson
from cyclopts import Parameter

SCHEMA_VERSION = 1
FOLDED = 32
"""Columns of text that the last column of a table has at the least, if it needs them."""
GAP = 2
"""Columns of text between two columns of a table."""

# Beyond those that JSON escapes anyway: DEL and C1, separators, direction marks and overrides. They
# can only be inside a text, and mean the same when they are escaped.
_FORGING = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")

AsJson = Annotated[bool, Parameter(name="--json", help="Print one JSON document instead.")]


def document(fields: Mapping[str, Any]) -> None:
    """Print one document; times become RFC 3339."""
    written = orjson.dumps({"schema_version": SCHEMA_VERSION, **fields}, option=orjson.OPT_UTC_Z)
    line(_FORGING.sub(lambda found: f"\\u{ord(found[0]):04x}", written.decode()))


def line(text: str) -> None:
    """Print one line of data."""
    print(text)  # noqa: T201 - the command line speaks


def say(text: str) -> None:
    """Say something to whoever sits there; it is no data."""
    print(text, file=sys.stderr)  # noqa: T201 - the same


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
    """Print rows, or say on stderr that there are none."""
    if not rows:
        say(empty)
        return
    cells = [[cell(value) for value in row] for row in rows]
    if not sys.stdout.isatty():
        for each in (columns, *cells):
            line("\t".join(each))
        return
    from rich.cells import cell_len  # noqa: PLC0415 - only on a terminal
    from rich.console import Console  # noqa: PLC0415 - the same
    from rich.table import Table  # noqa: PLC0415 - the same
    from rich.text import Text  # noqa: PLC0415 - the same

    # An id that is cut short is of no use, so only the last column is folded into what is left.
    widths = [max(map(cell_len, column)) for column in zip(columns, *cells, strict=True)]
    drawn = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False)
    for name, width in zip(columns[:-1], widths[:-1], strict=True):
        drawn.add_column(name, width=width)
    drawn.add_column(columns[-1], overflow="fold")
    for each in cells:
        drawn.add_row(*map(Text, each))  # a Text, because what others wrote may look like markup
    needed = sum(widths[:-1]) + GAP * len(columns[:-1]) + min(widths[-1], FOLDED)
    width, height = Console().size
    Console(width=max(width, needed), height=height).print(drawn)


def cell(value: object) -> str:
    """Write one value on one line, without control characters: others chose what is in it."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    text = value if isinstance(value, str) else str(value)
    return "".join(each if each.isprintable() else " " for each in text)
