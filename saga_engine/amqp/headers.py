"""
Reads the headers of a message within limits, or says why they cannot be read.

Headers beyond `max_header_bytes` or `max_header_count` are truncated, so that a sender cannot fill
the memory or the table of dead letters with them. The broker's own headers are kept first: without
`x-death` the origin of a dead letter would be unknown.
"""

from collections.abc import Mapping
from typing import Any

from saga_engine.amqp.tolerant_decoding import UNDECODABLE_HEADER, HeaderTable, to_json
from saga_engine.settings import Settings
from saga_engine.vocabulary import Json

TRUNCATED_HEADER = "x-truncated"
"""A header that the engine adds to headers that were truncated."""

BROKER_HEADER_PREFIXES = (
    "x-death",
    "x-first-death-",
    "x-last-death-",
    "x-delivery-count",
    "x-acquired-count",
)
"""Prefixes of the headers that the broker writes; a sender can forge them."""

_MIN_ENTRY_BYTES = 16
"""The least bytes that a name or a value counts for."""


def read_headers(table: Mapping[str, Any], settings: Settings) -> tuple[dict[str, Json], str]:
    """
    Convert a decoded header table to JSON within the limits.

    Returns:
        The headers that are kept, and a sentence that says why the message cannot be read; the
        sentence is empty when it can be read.
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
    """Keep as many bytes and headers as the limits allow."""
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
    """The bytes that may still be kept."""

    def __init__(self, size: int) -> None:
        self.remaining = size

    def truncate_text(self, value: str) -> str:
        """Truncate a text to the budget."""
        kept = value[: max(self.remaining, 0)]
        self.remaining -= max(len(kept.encode()), _MIN_ENTRY_BYTES)
        return kept if len(kept) == len(value) else f"{kept}…"

    def truncate_value(self, value: Json) -> Json:
        """Truncate a value to the budget."""
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
