"""
JSON as it goes into a column: as text, because that is what the driver sends quickest.

`dumps` is strict, for what is ours and was checked; `storable` takes anything, for dead letters.
"""

import math
from collections.abc import Mapping
from typing import Any

import orjson

from saga_engine.errors import StoreRefused

_DEPTH_MAX = (
    64  # as deep as a body may be nested by default, and far below where JSON readers give up
)


def dumps(value: Any, *, sort_keys: bool = False) -> str:
    """
    Write *value* as JSON; with `ordered`, the keys of objects in their order.

    Raises:
        StoreRefused: it holds what JSON cannot: a lone surrogate, an integer beyond 64 bits.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS if sort_keys else None).decode()
    except TypeError as error:
        raise StoreRefused(f"A value cannot be written as JSON: {error}.") from None


def make_storable(value: Any, depth: int = _DEPTH_MAX) -> Any:
    """
    Make of a sender's value what a text or JSONB column takes, as like to it as can be.

    PostgreSQL refuses NUL and lone surrogates (manual, 8.14), JSON has no infinity, and nesting
    without end would exhaust the stack of whoever reads it.
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
    """Whether a number can be written as it is."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and -(2**63) <= value < 2**63
