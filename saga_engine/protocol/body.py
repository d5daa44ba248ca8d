"""
Bodies: strict JSON within limits, or the reason why not; nothing is ever raised for bytes.

Stricter than Python's json, because what is read here is stored in PostgreSQL and shown to people:
no NaN or Infinity, no number beyond a double, no lone surrogate, no NUL, no byte order mark, no
nesting beyond the limit. Of a key that occurs twice the last value counts, as in PostgreSQL's
jsonb; an integer beyond 64 bits is read as the nearest double (RFC 8259, section 6).

The limits are those of `saga.limits`, which counts on the bytes before anything is decoded.
"""

from collections.abc import Iterable, Iterator
from typing import TypeAlias

import orjson

from saga_engine.payload.limits import (
    Excess,
    Limit,
    Limits,
    altered_integer,
    excess,
    nests_deeper,
    too_deep,
)
from saga_engine.protocol.limits import limits_of
from saga_engine.protocol.message import Delivery
from saga_engine.protocol.unreadable import Reason, Unreadable
from saga_engine.settings import Settings
from saga_engine.vocabulary import Json

_PLAIN = ("", "identity", "utf-8")
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
    return beyond_limits(delivery.body, settings) or _decoded(delivery.body)


def read_object(delivery: Delivery, settings: Settings) -> Object | Unreadable:
    """Read a body that must be a JSON object."""
    found = read_body(delivery, settings)
    if isinstance(found, Unreadable | dict):
        return found
    return Unreadable(Reason.NOT_AN_OBJECT, "The body is JSON, but not an object.")


def read_json(body: bytes, depth: int) -> Json | Unreadable:
    """Read JSON whose arrays and objects nest at most `depth` levels."""
    return _refused(too_deep(depth)) if nests_deeper(body, depth) else _decoded(body)


def beyond_limits(body: bytes, settings: Settings) -> Unreadable | None:
    """
    Check a body against `body_bytes`, `body_depth` and `body_values` without decoding it.

    Of bytes that are no JSON this says nothing.
    """
    found = excess(body, limits_of(settings))
    return None if found is None else _refused(found)


def _refused(found: Excess) -> Unreadable:
    reason = Reason.TOO_DEEP if found.limit is Limit.DEPTH else Reason.TOO_LARGE
    return Unreadable(reason, found.sentence)


def bounded_json(body: bytes, limits: Limits) -> Json | Unreadable:
    """Read JSON that came in no message, within the limits of one."""
    found = excess(body, limits)
    return _decoded(body) if found is None else _refused(found)


def write_json(value: Json) -> bytes:
    """
    Encode a value.

    Raises:
        TypeError: it is not JSON: another type, an integer beyond 64 bits, a lone surrogate.
    """
    return orjson.dumps(value)


def _decoded(body: bytes) -> Json | Unreadable:
    try:
        value: Json = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # Its message names a place and a rule and quotes nothing.
        if "depth limit" in error.msg:
            return Unreadable(Reason.TOO_DEEP, "The body nests deeper than can be read.")
        return Unreadable(Reason.MALFORMED_JSON, f"The body is not JSON: {error.msg}.")
    if b"\\u0000" in body and _has_nul(value):
        return Unreadable(
            Reason.NOT_STORABLE, "A text in the body contains the character NUL (\\u0000)."
        )
    if altered_integer(body):
        return Unreadable(
            Reason.NOT_STORABLE,
            "The body holds an integer beyond 64 bits, which would be altered. Send it as a text,"
            " or with an exponent if a double is meant.",
        )
    return value


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
