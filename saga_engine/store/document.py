"""JSON as it goes into a column: text, because that is what the driver sends quickest."""

from typing import Any

import orjson

from saga_engine.errors import StoreRefused


def dumps(value: Any, *, ordered: bool = False) -> str:
    """
    Write *value* as JSON; with `ordered`, the keys of objects in their order.

    Raises:
        StoreRefused: it holds what JSON cannot: a lone surrogate, an integer beyond 64 bits.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS if ordered else None).decode()
    except TypeError as error:
        raise StoreRefused(f"A value cannot be written as JSON: {error}.") from None
