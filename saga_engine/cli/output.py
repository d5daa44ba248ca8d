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

from saga_engine.cli.layout import FOLDED, folded, lay_out

SCHEMA_VERSION = 1
WHOLE = frozenset({"run", "incident", "id", "example", "setting"})
"""Columns of ids and names, which are never folded: a person copies them."""

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
    for drawn in lay_out(columns, cells, get_terminal_size().columns, WHOLE):
        line(drawn)


def field(name: str, value: object, *, pad: int = 12) -> None:
    """Print a name and its value; on a terminal a long value is folded beside its name."""
    text, room = cell(value), get_terminal_size().columns - pad - 1
    lines = folded(text, room) if sys.stdout.isatty() and room >= FOLDED else [text]
    line(f"{name:{pad}} {lines[0]}")
    for each in lines[1:]:
        line(f"{'':{pad}} {each}")


def cell(value: object) -> str:
    """Write one value on one line, without control characters: others chose what is in it."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    text = value if isinstance(value, str) else str(value)
    return "".join(each if each.isprintable() else " " for each in text)
