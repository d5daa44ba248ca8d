"""
Bodies: strict JSON within limits, or the reason why not; nothing is ever raised for bytes.

Stricter than Python's json, because what is read here is stored in PostgreSQL and shown to people:
no NaN or Infinity, no number beyond a double, no lone surrogate, no NUL, no byte order mark, no
nesting beyond the limit. Of a key that occurs twice the last value counts, as in PostgreSQL's
jsonb; an integer beyond 64 bits is read as the nearest double (RFC 8259, section 6).

Nesting and values are counted on the bytes before anything is decoded: decoding is what costs time
and memory. Most bodies have so few commas and brackets that one look is enough.
"""

import math
import re
from collections.abc import Iterable, Iterator
from typing import TypeAlias

import orjson

from saga_engine.broker.unreadable import Reason, Unreadable
from saga_engine.broker.wire import Delivery
from saga_engine.saga.vocabulary import Json
from saga_engine.settings import Settings

_PLAIN = ("", "identity", "utf-8")
_EXPONENT = re.compile(rb"[0-9][eE][-+0-9]")
# The closing quote is optional, so that a text without one is passed over once, and never again.
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_NO_STRUCTURE = bytes(set(range(256)) - set(b'"[]{},'))
_OPENING = frozenset(b"[{")

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
    problem = beyond_limits(delivery.body, settings)
    if problem:
        return problem
    found = _decoded(delivery.body)
    return found if isinstance(found, Unreadable) else _bounded(found, delivery.body, settings)


def read_object(delivery: Delivery, settings: Settings) -> Object | Unreadable:
    """Read a body that must be a JSON object."""
    found = read_body(delivery, settings)
    if isinstance(found, Unreadable | dict):
        return found
    return Unreadable(Reason.NOT_AN_OBJECT, "The body is JSON, but not an object.")


def read_json(body: bytes, depth: int) -> Json | Unreadable:
    """Read JSON whose arrays and objects nest at most `depth` levels."""
    return _too_deep(depth) if _deeper(_structure(body), depth) else _decoded(body)


def beyond_limits(body: bytes, settings: Settings) -> Unreadable | None:
    """
    Check a body against `body_bytes`, `body_depth` and `body_values` without decoding it.

    The same for what is read and for what was written and is to be sent. Of bytes that are no JSON
    this says nothing.
    """
    if len(body) > settings.body_bytes:
        text = f"The body has {len(body)} bytes; body_bytes allows {settings.body_bytes}."
        return Unreadable(Reason.TOO_LARGE, text)
    opened = body.count(b"[") + body.count(b"{")
    if likely_values(body) <= settings.body_values and opened <= settings.body_depth:
        return None
    structure = _structure(body)
    # So much of it is all that a body with few enough values can have.
    if _deeper(structure[: 3 * settings.body_values], settings.body_depth):
        return _too_deep(settings.body_depth)
    if _more(structure, body, settings.body_values):
        text = f"The body holds more than {settings.body_values} values, which body_values allows."
        return Unreadable(Reason.TOO_LARGE, text)
    return None


def likely_values(body: bytes) -> int:
    """How many values a body holds at most: each but the first follows a comma or a bracket."""
    return 1 + body.count(b",") + body.count(b"{") + body.count(b"[")


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
    return value


def _bounded(value: Json, body: bytes, settings: Settings) -> Json | Unreadable:
    if _longer(body, value, settings.body_bytes):
        text = f"Without exponents its numbers are longer than body_bytes, {settings.body_bytes}."
        return Unreadable(Reason.TOO_LARGE, text)
    return value


def _structure(body: bytes) -> bytes:
    """Leave only the brackets and commas that are in no text, at the speed of copying."""
    if b"\\" in body:
        body = body.replace(rb"\\", b"").replace(rb"\"", b"")
    # Two quotes side by side enclose nothing; the others still enclose what they did.
    body = body.translate(None, _NO_STRUCTURE).replace(b'""', b"")
    return b"".join(body.split(b'"')[::2]) if b'"' in body else body


def _more(structure: bytes, body: bytes, most: int) -> bool:
    commas = structure.count(b",")
    if commas >= most or likely_values(structure) <= most:
        return commas >= most
    # It depends on how many arrays and objects are empty; there are few texts to pass over.
    bare = _TEXT.sub(b"0", body).translate(None, b" \t\r\n")
    return likely_values(bare) - bare.count(b"[]") - bare.count(b"{}") > most


def _longer(body: bytes, value: Json, most: int) -> bool:
    """Whether PostgreSQL's jsonb, which knows no exponents, would make too much of it: 1e308."""
    # A double has at most 308 digits more than are written; "0e1" is in many a run's id, too.
    if len(body) + 308 * len(_EXPONENT.findall(body)) <= most:
        return False
    numbers = (each for each in _values(value) if isinstance(each, float) and each)
    return len(body) + sum(int(abs(math.log10(abs(each)))) for each in numbers) > most


def _too_deep(depth: int) -> Unreadable:
    return Unreadable(
        Reason.TOO_DEEP, f"The body nests deeper than {depth} levels, which body_depth allows."
    )


def _deeper(structure: bytes, depth: int) -> bool:
    if structure.count(b"[") + structure.count(b"{") <= depth:
        return False
    level = 0
    for bracket in structure.translate(None, b","):
        level += 1 if bracket in _OPENING else -1
        if level > depth:
            return True
    return False


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
