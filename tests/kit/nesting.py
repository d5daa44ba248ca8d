"""JSON of any depth."""

from typing import Any


def nested_lists(levels: int) -> list[Any]:
    """An empty list inside *levels* others."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def nested_dicts(levels: int) -> dict[str, Any]:
    """An empty dict inside *levels* others."""
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"x": value}
    return value
