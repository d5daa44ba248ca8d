"""
What commands print: one JSON document, or lines for people.

Data goes to stdout, messages go to stderr. On a terminal a table is fitted to the width; elsewhere
its cells are separated by tabs, without colour, so that cut and awk can read it. While
`schema_version` is unchanged, fields are added to a document, never renamed or removed.
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
"""Columns of ids and names, which are never wrapped, so that they can be copied."""

# In addition to what JSON escapes: DEL and C1, separators, direction marks and overrides. They
# occur only inside strings, and an escaped character means the same.
_UNSAFE_CHARACTERS = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")

_NON_ASCII = re.compile("[^\x00-\x7e]")
"""What is escaped for an output that is not in a Unicode encoding."""

AsJson = Annotated[bool, Parameter(name="--json", help="Print one JSON document instead.")]


def print_json(fields: Mapping[str, Any]) -> None:
    """Print one document; times become RFC 3339."""
    _print_encoded({"schema_version": SCHEMA_VERSION, **fields}, orjson.OPT_UTC_Z)


def print_foreign_json(document: Mapping[str, Any]) -> None:
    """Print a document whose format is not ours, indented, as a file for other programs."""
    _print_encoded(document, orjson.OPT_INDENT_2)


def _print_encoded(document: Mapping[str, Any], option: int) -> None:
    encoded = orjson.dumps(document, option=option)
    escaped_characters = _UNSAFE_CHARACTERS if _is_unicode(sys.stdout.encoding) else _NON_ASCII
    print_line(escaped_characters.sub(_escape_match, encoded.decode()))


def print_document(document: Any) -> None:
    """Print a document of another format, such as a JSON Schema, with indented lines."""
    print_line(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


def print_line(text: str) -> None:
    """Print one line of data."""
    print(text)  # noqa: T201 - the output of a command


def print_done(text: str, fields: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what a command has done: a sentence, or one document."""
    if as_json:
        print_json(fields)
    else:
        print_line(text)


def print_stderr(text: str) -> None:
    """Print a message, which is not data, to stderr."""
    standard_streams.write_stderr(text)


def _is_unicode(encoding: str | None) -> bool:
    return (encoding or "utf-8").lower().replace("-", "").startswith(("utf8", "utf16", "utf32"))


def _escape_match(matched: re.Match[str]) -> str:
    """Escape a character as JSON does: one beyond the first plane as a surrogate pair."""
    units = matched[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
    """Print rows, or *empty* on stderr if there are none."""
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
    """Print a label and its value; on a terminal a long value is wrapped beside its label."""
    text, value_width = format_cell(value), get_terminal_size().columns - label_width - 1
    lines = (
        wrap_text(text, value_width)
        if sys.stdout.isatty() and value_width >= FOLD_WIDTH
        else [text]
    )
    print_line(f"{name:{label_width}} {lines[0]}")
    for each in lines[1:]:
        print_line(f"{'':{label_width}} {each}")


def print_fields(fields: Mapping[str, object]) -> None:
    """Print labels and their values, one below the other."""
    label_width = max(map(len, fields), default=0)
    for name, value in fields.items():
        print_field(name, value, label_width=label_width)


def format_cell(value: object) -> str:
    """Format a value on one line, without control characters: it may come from other programs."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    text = value if isinstance(value, str) else str(value)
    return "".join(each if each.isprintable() else " " for each in text)
