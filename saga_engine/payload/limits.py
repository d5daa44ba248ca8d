"""
How large a JSON body may be, counted on its bytes without decoding them.

Writers and readers apply the same limits, so that nothing is sent that its reader refuses. The
values come from the settings `body_bytes`, `body_depth` and `body_values`; the core gets them as
they are. Decoding is what costs time and memory; most bodies have so few commas and brackets that
one look is enough.
"""

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

# The closing quote is optional, so that a text without one is passed over once, and never again.
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_EXPONENT = re.compile(rb"[0-9][eE][-+0-9]")
_NUMBER = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?[eE][-+]?[0-9]+")
_NO_STRUCTURE = bytes(set(range(256)) - set(b'"[]{},'))
_DIGITS = bytes(0x30 if 0x30 <= each <= 0x39 else 0x20 for each in range(256))
_LONG = b"0" * 19
"""Digits of the shortest integers beyond 64 bits, as _DIGITS writes them."""
_INTEGER = re.compile(rb"(?<![0-9.eE+-])-?([0-9]{19,})(?![0-9.eE])")
_OPENING = frozenset(b"[{")
_SPACE = b" \t\r\n"
_DOUBLE_DIGITS = 308
"""Digits of the longest integers that all doubles' range holds."""


@dataclass(frozen=True, slots=True)
class Limits:
    """
    What a body may hold.

    Args:
        size: bytes; also of what PostgreSQL's jsonb makes of it, which knows no exponents.
        depth: levels of arrays and objects.
        values: values, inner ones included.
    """

    size: int = 262_144
    depth: int = 64
    values: int = 10_000


LONGEST = 79
"""Bytes at most, without exponents, for each byte: four of them, as `1e9,`, become 312 at most."""

LIMITS = Limits()
"""The defaults of the settings."""


class Limit(StrEnum):
    """Which limit a body is beyond, by the name of its setting."""

    SIZE = "body_bytes"
    DEPTH = "body_depth"
    VALUES = "body_values"


@dataclass(frozen=True, slots=True)
class Excess:
    """A limit that a body is beyond, and a sentence that says so."""

    limit: Limit
    sentence: str


def excess(body: bytes, limits: Limits) -> Excess | None:
    """
    Check a body against the limits; None when it is within all of them.

    Of bytes that are no JSON this says nothing.
    """
    if len(body) > limits.size:
        text = f"The body has {len(body)} bytes; body_bytes allows {limits.size}."
        return Excess(Limit.SIZE, text)
    if _may_be_beyond(body, limits):
        structure = _structure(body)
        # So much of it is all that a body with few enough values can have.
        if _deeper(structure[: 3 * limits.values], limits.depth):
            return too_deep(limits.depth)
        if _more(structure, body, limits.values):
            text = f"The body holds more than {limits.values} values, which body_values allows."
            return Excess(Limit.VALUES, text)
    if (
        len(body) * LONGEST > limits.size
        and _EXPONENT.search(body)
        and len(body) + _digits(body) > limits.size
    ):
        text = f"Without exponents its numbers are longer than body_bytes, {limits.size}."
        return Excess(Limit.SIZE, text)
    return None


def _may_be_beyond(body: bytes, limits: Limits) -> bool:
    """Whether it has brackets or commas enough, those in its texts counted too."""
    if len(body) > limits.depth and body.count(b"[") + body.count(b"{") > limits.depth:
        return True
    # Of n bytes at most (n + 1) / 2 are values, because something stands between two of them.
    return len(body) >= 2 * limits.values and likely_values(body) > limits.values


def altered_integer(body: bytes) -> bool:
    """
    Whether a body of JSON holds an integer that JSON readers alter.

    They read an integer beyond 64 bits as the nearest double. A double that is the integer, as that
    of 2**64 is, alters nothing.
    """
    if _LONG not in body.translate(_DIGITS):
        return False
    if b"\\" in body:
        body = body.replace(rb"\\", b"").replace(rb"\"", b"")
    bare = b'"'.join(body.split(b'"')[::2])  # without what is in texts
    return any(_inexact(found[0], found[1]) for found in _INTEGER.finditer(bare))


def _inexact(written: bytes, digits: bytes) -> bool:
    if len(digits) > _DOUBLE_DIGITS:
        return True
    number = int(written)
    # What a double is written as, which is what leaves, has fewer digits than its exact value.
    return not -(2**63) <= number < 2**64 and int(Decimal(repr(float(number)))) != number


def nests_deeper(body: bytes, depth: int) -> bool:
    """Whether its arrays and objects nest deeper than *depth* levels."""
    return _deeper(_structure(body), depth)


def too_deep(depth: int) -> Excess:
    """What a body is that nests deeper than *depth* levels."""
    text = f"The body nests deeper than {depth} levels, which body_depth allows."
    return Excess(Limit.DEPTH, text)


def likely_values(body: bytes) -> int:
    """How many values a body holds at most: each but the first follows a comma or a bracket."""
    return 1 + body.count(b",") + body.count(b"{") + body.count(b"[")


def _structure(body: bytes) -> bytes:
    """Leave only the brackets and commas that are in no text, at the speed of copying."""
    if b"\\" in body:
        body = body.replace(rb"\\", b"").replace(rb"\"", b"")
    # Two quotes side by side enclose nothing; the others still enclose what they did.
    body = body.translate(None, _NO_STRUCTURE).replace(b'""', b"")
    return b"".join(body.split(b'"')[::2]) if b'"' in body else body


def _deeper(structure: bytes, depth: int) -> bool:
    if structure.count(b"[") + structure.count(b"{") <= depth:
        return False
    level = 0
    for bracket in structure.translate(None, b","):
        level += 1 if bracket in _OPENING else -1
        if level > depth:
            return True
    return False


def _more(structure: bytes, body: bytes, most: int) -> bool:
    commas = structure.count(b",")
    if commas >= most or likely_values(structure) <= most:
        return commas >= most
    # It depends on how many arrays and objects are empty; there are few texts to pass over.
    bare = _TEXT.sub(b"0", body).translate(None, _SPACE)
    return likely_values(bare) - bare.count(b"[]") - bare.count(b"{}") > most


def _digits(body: bytes) -> int:
    numbers = (abs(float(each)) for each in _NUMBER.findall(_TEXT.sub(b"0", body)))
    return sum(_length(each) for each in numbers if each)


def _length(number: float) -> int:
    return int(abs(math.log10(number))) if math.isfinite(number) else 308
