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
from saga_engine.cli.table_layout import FOLDED, folded, lay_out

SCHEMA_VERSION = 1
WHOLE = frozenset({"run", "incident", "id", "example", "setting"})
"""Columns of ids and names, which are never folded: a person copies them."""

# Beyond those that JSON escapes anyway: DEL and C1, separators, direction marks and overrides. They
# can only be inside a text, and mean the same when they are escaped.
_FORGING = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")

_NOT_ASCII = re.compile("[^\x00-\x7e]")
"""What is escaped for an output that cannot hold every character."""

AsJson = Annotated[bool, Parameter(name="--json", help="Print one JSON document instead.")]


def document(fields: Mapping[str, Any]) -> None:
    """Print one document; times become RFC 3339."""
    written = orjson.dumps({"schema_version": SCHEMA_VERSION, **fields}, option=orjson.OPT_UTC_Z)
    unsafe = _FORGING if _holds_everything(sys.stdout.encoding) else _NOT_ASCII
    line(unsafe.sub(_escaped, written.decode()))


def line(text: str) -> None:
    """Print one line of data."""
    print(text)  # noqa: T201 - the command line speaks


def say(text: str) -> None:
    """Say something to whoever sits there; it is no data."""
    standard_streams.talk(text)


def _holds_everything(encoding: str | None) -> bool:
    return (encoding or "utf-8").lower().replace("-", "").startswith(("utf8", "utf16", "utf32"))


def _escaped(found: re.Match[str]) -> str:
    """Escape a character as JSON does: beyond the first plane in two halves."""
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


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
