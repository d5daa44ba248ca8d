"""JSON of any depth."""

from typing import Any


def nested_arrays(levels: int) -> list[Any]:
    """An empty array inside *levels* others."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def nested_objects(levels: int) -> dict[str, Any]:
    """An empty object inside *levels* others."""
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"x": value}
    return value
