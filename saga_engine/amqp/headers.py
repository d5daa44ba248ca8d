"""
The headers of a message within limits, and the reason why those of another are not read.

Rule: what a table holds beyond `max_header_bytes` or `max_header_count` is cut before it is kept,
so that
nobody can fill the memory or the table of dead letters with it. What the broker wrote is kept
first: without `x-death` nobody could tell where a dead letter came from.
"""

from collections.abc import Mapping
from typing import Any

from saga_engine.amqp.tolerant_decoding import UNDECODABLE_HEADER, HeaderTable, to_json
from saga_engine.settings import Settings
from saga_engine.vocabulary import Json

TRUNCATED_HEADER = "x-truncated"
"""A header of ours beside those that were kept of too many."""

BROKER_HEADER_PREFIXES = (
    "x-death",
    "x-first-death-",
    "x-last-death-",
    "x-delivery-count",
    "x-acquired-count",
)
"""How the names of headers begin that the broker writes, or that a sender forged."""

_MIN_ENTRY_BYTES = 16
"""Bytes that any value counts for, and any name."""


def read_headers(table: Mapping[str, Any], settings: Settings) -> tuple[dict[str, Json], str]:
    """
    Read a header table as it was decoded.

    Returns:
        The headers that are kept, and why the message cannot be read, in a sentence; empty when it
        can be.
    """
    size = table.size_bytes if isinstance(table, HeaderTable) else 0
    if size > settings.max_header_bytes:
        problem = (
            f"Its headers have {size} bytes; max_header_bytes allows {settings.max_header_bytes}."
        )
    elif len(table) > settings.max_header_count:
        problem = (
            f"It has {len(table)} headers; max_header_count allows {settings.max_header_count}."
        )
    else:
        problem = "Its headers cannot be decoded." if UNDECODABLE_HEADER in table else ""
        return _headers_to_json(table), problem
    return _truncate_headers(_headers_to_json(table), settings), problem


def _headers_to_json(table: Mapping[str, Any]) -> dict[str, Json]:
    converted = to_json(dict(table))
    assert isinstance(converted, dict), "a table becomes an object"
    return converted


def _truncate_headers(headers: Mapping[str, Json], settings: Settings) -> dict[str, Json]:
    """Keep as much as is read of others."""
    kept: dict[str, Json] = {TRUNCATED_HEADER: True}
    budget = _ByteBudget(settings.max_header_bytes)
    ordered = sorted(headers, key=lambda name: not name.startswith(BROKER_HEADER_PREFIXES))
    for name in ordered[: settings.max_header_count]:
        if budget.remaining <= 0:
            break
        budget.remaining -= max(len(name.encode()), _MIN_ENTRY_BYTES)
        kept[name] = budget.truncate_value(headers[name])
    return kept


class _ByteBudget:
    """How many bytes may still be kept."""

    def __init__(self, size: int) -> None:
        self.remaining = size

    def truncate_text(self, value: str) -> str:
        """Take as much of a text as there is room for."""
        kept = value[: max(self.remaining, 0)]
        self.remaining -= max(len(kept.encode()), _MIN_ENTRY_BYTES)
        return kept if len(kept) == len(value) else f"{kept}…"

    def truncate_value(self, value: Json) -> Json:
        """Take as much of a value as there is room for."""
        if isinstance(value, str):
            return self.truncate_text(value)
        self.remaining -= _MIN_ENTRY_BYTES
        if isinstance(value, list):
            return self._truncate_list(value)
        if isinstance(value, dict):
            return self._truncate_object(value)
        return value

    def _truncate_list(self, value: list[Json]) -> list[Json]:
        kept = []
        for item in value:
            if self.remaining <= 0:
                break
            kept.append(self.truncate_value(item))
        return kept

    def _truncate_object(self, value: dict[str, Json]) -> dict[str, Json]:
        kept: dict[str, Json] = {}
        for name, item in value.items():
            if self.remaining <= 0:
                break
            self.remaining -= max(len(name.encode()), _MIN_ENTRY_BYTES)
            kept[name] = self.truncate_value(item)
        return kept
