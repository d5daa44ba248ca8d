"""
How large a JSON body may be, counted on its bytes without decoding them.

Writers and readers apply the same limits, so that nothing is sent that its reader refuses. The
values come from the settings `max_body_bytes`, `max_body_depth` and `max_body_json_values`.
Decoding costs time and memory; most bodies have so few commas and brackets that counting them is
enough.
"""

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

# The closing quote is optional, so that a text without one is scanned only once.
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_EXPONENT = re.compile(rb"[0-9][eE][-+0-9]")
_NUMBER = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?[eE][-+]?[0-9]+")
_NON_STRUCTURAL_BYTES = bytes(set(range(256)) - set(b'"[]{},'))
_DIGIT_TABLE = bytes(0x30 if 0x30 <= each <= 0x39 else 0x20 for each in range(256))
_LONG_INTEGER = b"0" * 19
"""Digits of the shortest integers beyond 64 bits, as _DIGIT_TABLE writes them."""
_INTEGER = re.compile(rb"(?<![0-9.eE+-])-?([0-9]{19,})(?![0-9.eE])")
_OPENING_BRACKETS = frozenset(b"[{")
_WHITESPACE = b" \t\r\n"
_MAX_DOUBLE_DIGITS = 308
"""Digits of the longest integers that are within the range of doubles."""


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """
    What a body may have.

    Args:
        max_bytes: bytes; also of its form as PostgreSQL's jsonb, which has no exponents.
        max_depth: levels of arrays and objects.
        max_values: values, inner ones included.
    """

    max_bytes: int = 262_144
    max_depth: int = 64
    max_values: int = 10_000


MAX_EXPANSION_FACTOR = 79
"""Most bytes, without exponents, for each byte: four of them, as `1e9,`, become at most 312."""

DEFAULT_LIMITS = BodyLimits()
"""The defaults of the settings."""


class LimitName(StrEnum):
    """Which limit a body exceeds, by the name of its setting."""

    BYTES = "max_body_bytes"
    DEPTH = "max_body_depth"
    VALUES = "max_body_json_values"


@dataclass(frozen=True, slots=True)
class LimitViolation:
    """A limit that a body exceeds, and a sentence about it."""

    limit: LimitName
    message: str


def find_violation(body: bytes, limits: BodyLimits) -> LimitViolation | None:
    """
    Check a body against the limits; None if it is within all of them.

    Whether the bytes are JSON is not checked.
    """
    if len(body) > limits.max_bytes:
        text = f"The body has {len(body)} bytes; max_body_bytes allows {limits.max_bytes}."
        return LimitViolation(LimitName.BYTES, text)
    if _may_exceed(body, limits):
        structure = _structural_bytes(body)
        # A body with few enough values has no more structure than this.
        if _is_deeper(structure[: 3 * limits.max_values], limits.max_depth):
            return depth_violation(limits.max_depth)
        if _has_more_values(structure, body, limits.max_values):
            return values_violation(limits.max_values)
    if (
        len(body) * MAX_EXPANSION_FACTOR > limits.max_bytes
        and _EXPONENT.search(body)
        and len(body) + _expanded_digits(body) > limits.max_bytes
    ):
        text = f"Without exponents its numbers are longer than max_body_bytes, {limits.max_bytes}."
        return LimitViolation(LimitName.BYTES, text)
    return None


def _may_exceed(body: bytes, limits: BodyLimits) -> bool:
    """Whether it has enough brackets or commas, those in its texts counted too."""
    if len(body) > limits.max_depth and body.count(b"[") + body.count(b"{") > limits.max_depth:
        return True
    # Of n bytes at most (n + 1) / 2 are values, because a separator is between two of them.
    return len(body) >= 2 * limits.max_values and max_value_count(body) > limits.max_values


def has_inexact_integer(body: bytes) -> bool:
    """
    Whether a JSON body has an integer that JSON readers alter.

    They read an integer beyond 64 bits as the nearest double. If that double equals the integer, as
    for 2**64, nothing is altered.
    """
    if _LONG_INTEGER not in body.translate(_DIGIT_TABLE):
        return False
    if b"\\" in body:
        body = body.replace(rb"\\", b"").replace(rb"\"", b"")
    without_strings = b'"'.join(body.split(b'"')[::2])  # without the texts
    return any(_is_inexact(found[0], found[1]) for found in _INTEGER.finditer(without_strings))


def _is_inexact(literal: bytes, digits: bytes) -> bool:
    if len(digits) > _MAX_DOUBLE_DIGITS:
        return True
    number = int(literal)
    # A double is written with fewer digits than its exact value has.
    return not -(2**63) <= number < 2**64 and int(Decimal(repr(float(number)))) != number


def exceeds_depth(body: bytes, depth: int) -> bool:
    """Whether its arrays and objects nest deeper than *depth* levels."""
    return _is_deeper(_structural_bytes(body), depth)


def depth_violation(depth: int) -> LimitViolation:
    """The violation of a body that nests deeper than *depth* levels."""
    text = f"The body nests deeper than {depth} levels, which max_body_depth allows."
    return LimitViolation(LimitName.DEPTH, text)


def values_violation(max_values: int) -> LimitViolation:
    """The violation of a body that has more than *max_values* values."""
    text = f"The body holds more than {max_values} values, which max_body_json_values allows."
    return LimitViolation(LimitName.VALUES, text)


def max_value_count(body: bytes) -> int:
    """How many values a body has at most: each but the first follows a comma or a bracket."""
    return 1 + body.count(b",") + body.count(b"{") + body.count(b"[")


def _structural_bytes(body: bytes) -> bytes:
    """Keep only the brackets and commas outside of texts, at the speed of copying."""
    if b"\\" in body:
        body = body.replace(rb"\\", b"").replace(rb"\"", b"")
    # Two adjacent quotes enclose nothing; the others still enclose the same.
    body = body.translate(None, _NON_STRUCTURAL_BYTES).replace(b'""', b"")
    return b"".join(body.split(b'"')[::2]) if b'"' in body else body


def _is_deeper(structure: bytes, depth: int) -> bool:
    if structure.count(b"[") + structure.count(b"{") <= depth:
        return False
    level = 0
    for bracket in structure.translate(None, b","):
        level += 1 if bracket in _OPENING_BRACKETS else -1
        if level > depth:
            return True
    return False


def _has_more_values(structure: bytes, body: bytes, max_values: int) -> bool:
    commas = structure.count(b",")
    if commas >= max_values or max_value_count(structure) <= max_values:
        return commas >= max_values
    # It depends on how many arrays and objects are empty; there are few texts to remove.
    without_strings = _STRING.sub(b"0", body).translate(None, _WHITESPACE)
    return (
        max_value_count(without_strings)
        - without_strings.count(b"[]")
        - without_strings.count(b"{}")
        > max_values
    )


def _expanded_digits(body: bytes) -> int:
    numbers = (abs(float(each)) for each in _NUMBER.findall(_STRING.sub(b"0", body)))
    return sum(_expanded_length(each) for each in numbers if each)


def _expanded_length(number: float) -> int:
    return int(abs(math.log10(number))) if math.isfinite(number) else 308
