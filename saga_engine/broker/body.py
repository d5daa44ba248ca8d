"""
Bodies: strict JSON within limits, or the reason why not; nothing is ever raised for bytes.

Stricter than Python's json, because what is read here is stored in PostgreSQL and shown to people:
no NaN or Infinity, no number beyond a double, no lone surrogate, no NUL, no byte order mark, no
nesting beyond the limit. Of a key that occurs twice the last value counts, as in PostgreSQL's
jsonb; an integer beyond 64 bits is read as the nearest double (RFC 8259, section 6).
"""

import math
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeAlias

import orjson

from saga_engine.broker.unreadable import Reason, Unreadable
from saga_engine.broker.wire import Delivery
from saga_engine.saga.vocabulary import Json
from saga_engine.settings import Settings

_PLAIN = ("", "identity", "utf-8")
_EXPONENT = re.compile(rb"[0-9][eE][-+0-9]")

Object: TypeAlias = dict[str, Json]
"""A JSON object, as orjson reads it."""


def read_body(delivery: Delivery, settings: Settings) -> Json | Unreadable:
    """Read a body; that of unsound headers, or beyond `body_bytes`, is not even looked at."""
    if delivery.problem:
        return Unreadable(Reason.BAD_HEADERS, delivery.problem)
    if delivery.size > settings.body_bytes:
        return Unreadable(
            Reason.TOO_LARGE,
            f"The body has {delivery.size} bytes; body_bytes allows {settings.body_bytes}.",
        )
    if delivery.content_encoding.lower() not in _PLAIN:
        return Unreadable(
            Reason.ENCODED, "The body is compressed or encoded; only plain JSON is read."
        )
    found = read_json(delivery.body, settings.body_depth)
    return found if isinstance(found, Unreadable) else _bounded(found, delivery.body, settings)


def read_object(delivery: Delivery, settings: Settings) -> Object | Unreadable:
    """Read a body that must be a JSON object."""
    found = read_body(delivery, settings)
    if isinstance(found, Unreadable | dict):
        return found
    return Unreadable(Reason.NOT_AN_OBJECT, "The body is JSON, but not an object.")


def read_json(body: bytes, depth: int) -> Json | Unreadable:
    """Read JSON whose arrays and objects nest at most `depth` levels."""
    try:
        value: Json = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # Its message names a place and a rule and quotes nothing.
        if "depth limit" in error.msg:
            return _too_deep(depth)
        return Unreadable(Reason.MALFORMED_JSON, f"The body is not JSON: {error.msg}.")
    # Two cheap looks at the bytes spare nearly every message the walk through its values.
    if body.count(b"{") + body.count(b"[") > depth and _deeper(value, depth):
        return _too_deep(depth)
    if b"\\u0000" in body and _has_nul(value):
        return Unreadable(
            Reason.NOT_STORABLE, "A text in the body contains the character NUL (\\u0000)."
        )
    return value


def write_json(value: Json) -> bytes:
    """
    Encode a value.

    Raises:
        TypeError: it is not JSON: another type, an integer beyond 64 bits, a lone surrogate.
    """
    return orjson.dumps(value)


def _bounded(value: Json, body: bytes, settings: Settings) -> Json | Unreadable:
    if _more(body, value, settings.body_values):
        text = f"The body holds more than {settings.body_values} values, which body_values allows."
    elif _longer(body, value, settings.body_bytes):
        text = f"Without exponents its numbers are longer than body_bytes, {settings.body_bytes}."
    else:
        return value
    return Unreadable(Reason.TOO_LARGE, text)


def _more(body: bytes, value: Json, most: int) -> bool:
    # Each value but the first follows one of these; most bodies need no walk.
    likely = body.count(b",") + body.count(b"{") + body.count(b"[")
    return likely >= most and sum(1 for _ in islice(_values(value), most + 1)) > most


def _longer(body: bytes, value: Json, most: int) -> bool:
    """Whether PostgreSQL's jsonb, which knows no exponents, would make too much of it: 1e308."""
    if not _EXPONENT.search(body):
        return False
    numbers = (each for each in _values(value) if isinstance(each, float) and each)
    return len(body) + sum(int(abs(math.log10(abs(each)))) for each in numbers) > most


def _too_deep(depth: int) -> Unreadable:
    return Unreadable(
        Reason.TOO_DEEP, f"The body nests deeper than {depth} levels, which body_depth allows."
    )


def _deeper(value: Json, depth: int) -> bool:
    level: list[Json] = [value]
    for _ in range(depth + 1):
        level = [item for item in level if isinstance(item, dict | list)]
        if not level:
            return False
        level = [item for container in level for item in _items(container)]
    return True


def _values(value: Json) -> Iterator[Json]:
    """It, and all that it holds; not by recursion, which has a limit."""
    rest = [value]
    while rest:
        item = rest.pop()
        yield item
        rest.extend(_items(item))


def _items(container: Json) -> Iterable[Json]:
    if isinstance(container, dict):
        return container.values()
    return container if isinstance(container, list) else ()


def _has_nul(value: Json) -> bool:
    return any(
        "\0" in item if isinstance(item, str) else isinstance(item, dict) and "\0" in "".join(item)
        for item in _values(value)
    )
