"""
The headers of a message within limits, and the reason why those of another are not read.

Rule: what a table holds beyond `header_bytes` or `header_count` is cut before it is kept, so that
nobody can fill the memory or the table of dead letters with it. What the broker wrote is kept
first: without `x-death` nobody could tell where a dead letter came from.
"""

from collections.abc import Mapping
from typing import Any

from saga_engine.amqp.tolerant_decoding import UNDECODABLE, Table, plain
from saga_engine.settings import Settings
from saga_engine.vocabulary import Json

CUT = "x-cut"
"""A header of ours beside those that were kept of too many."""

BROKERS = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count")
"""How the names of headers begin that the broker writes, or that a sender forged."""

_LEAST = 16
"""Bytes that any value counts for, and any name."""


def read_headers(table: Mapping[str, Any], settings: Settings) -> tuple[dict[str, Json], str]:
    """
    Read a header table as it was decoded.

    Returns:
        The headers that are kept, and why the message cannot be read, in a sentence; empty when it
        can be.
    """
    size = table.size if isinstance(table, Table) else 0
    if size > settings.header_bytes:
        problem = f"Its headers have {size} bytes; header_bytes allows {settings.header_bytes}."
    elif len(table) > settings.header_count:
        problem = f"It has {len(table)} headers; header_count allows {settings.header_count}."
    else:
        problem = "Its headers cannot be decoded." if UNDECODABLE in table else ""
        return _plain(table), problem
    return _cut(_plain(table), settings), problem


def _plain(table: Mapping[str, Any]) -> dict[str, Json]:
    found = plain(dict(table))
    assert isinstance(found, dict), "a table becomes an object"
    return found


def _cut(headers: Mapping[str, Json], settings: Settings) -> dict[str, Json]:
    """Keep as much as is read of others."""
    kept: dict[str, Json] = {CUT: True}
    room = _Room(settings.header_bytes)
    ordered = sorted(headers, key=lambda name: not name.startswith(BROKERS))
    for name in ordered[: settings.header_count]:
        if room.left <= 0:
            break
        room.left -= max(len(name.encode()), _LEAST)
        kept[name] = room.value(headers[name])
    return kept


class _Room:
    """How many bytes may still be kept."""

    def __init__(self, size: int) -> None:
        self.left = size

    def text(self, value: str) -> str:
        """Take as much of a text as there is room for."""
        kept = value[: max(self.left, 0)]
        self.left -= max(len(kept.encode()), _LEAST)
        return kept if len(kept) == len(value) else f"{kept}…"

    def value(self, value: Json) -> Json:
        """Take as much of a value as there is room for."""
        if isinstance(value, str):
            return self.text(value)
        self.left -= _LEAST
        if isinstance(value, list):
            return self._items(value)
        if isinstance(value, dict):
            return self._members(value)
        return value

    def _items(self, value: list[Json]) -> list[Json]:
        kept = []
        for item in value:
            if self.left <= 0:
                break
            kept.append(self.value(item))
        return kept

    def _members(self, value: dict[str, Json]) -> dict[str, Json]:
        kept: dict[str, Json] = {}
        for name, item in value.items():
            if self.left <= 0:
                break
            self.left -= max(len(name.encode()), _LEAST)
            kept[name] = self.value(item)
        return kept
