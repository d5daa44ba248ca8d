"""
JSON as it is stored in a column: as text, which the driver sends fastest.

`dumps` is strict, for the engine's own checked values. `make_storable` accepts any value, for dead
letters.
"""

import math
from collections.abc import Mapping
from typing import Any

import orjson

from saga_engine.errors import StoreRefused

_DEPTH_MAX = 64  # the default limit of a body, and far below the limits of JSON readers


def dumps(value: Any, *, sort_keys: bool = False) -> str:
    """
    Write *value* as JSON.

    Raises:
        StoreRefused: it has a lone surrogate, or an integer of more than 64 bits.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS if sort_keys else None).decode()
    except TypeError as error:
        raise StoreRefused(f"A value cannot be written as JSON: {error}.") from None


def make_storable(value: Any, depth: int = _DEPTH_MAX) -> Any:
    """
    Make a sender's value storable in a text or JSONB column, with as few changes as possible.

    PostgreSQL refuses NUL and lone surrogates (manual, 8.14), JSON has no infinity, and deep
    nesting would exhaust the stack of a reader.
    """
    if isinstance(value, Mapping):
        pairs = value.items() if depth else ()
        return {make_storable(str(name)): make_storable(each, depth - 1) for name, each in pairs}
    if isinstance(value, list | tuple):
        return [make_storable(each, depth - 1) for each in value if depth]
    if value is None or isinstance(value, bool) or _is_storable_number(value):
        return value
    return str(value).encode("utf-8", "replace").decode().replace("\x00", "\ufffd")


def _is_storable_number(value: Any) -> bool:
    """Whether JSON and PostgreSQL can store a number unchanged."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and -(2**63) <= value < 2**63
