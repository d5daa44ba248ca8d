"""
How large a JSON body may be, counted on its bytes without decoding them.

Writers and readers apply the same limits, so that nothing is sent that its reader refuses. The
values come from the settings `body_bytes`, `body_depth` and `body_values`; the core gets them as
they are.
"""

import math
import re
from dataclasses import dataclass
from itertools import accumulate

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_EXPONENT = re.compile(rb"[0-9][eE][-+0-9]")
_NUMBER = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?[eE][-+]?[0-9]+")
_BRACKETS = bytes(each for each in range(256) if each not in b"[]{}")
_SPACE = b" \t\r\n"


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


LIMITS = Limits()
"""The defaults of the settings."""


def excess(body: bytes, limits: Limits) -> str:
    """Say in a sentence which limit a body of valid JSON is beyond; empty when it is within all."""
    if len(body) > limits.size:
        return f"It has {len(body)} bytes; body_bytes allows {limits.size}."
    brackets = body.count(b"[") + body.count(b"{")
    many = brackets + body.count(b",") >= limits.values
    powers = bool(_EXPONENT.search(body))
    if brackets <= limits.depth and not many and not powers:
        return ""  # most bodies: counts over the bytes say enough
    bare = _STRING.sub(b"0", body).translate(None, _SPACE)
    if _depth(bare) > limits.depth:
        return f"It nests deeper than {limits.depth} levels, which body_depth allows."
    if many and _values(bare) > limits.values:
        return f"It holds more than {limits.values} values, which body_values allows."
    if powers and len(body) + _digits(bare) > limits.size:
        return f"Without exponents its numbers are longer than body_bytes, {limits.size}."
    return ""


def _depth(bare: bytes) -> int:
    steps = (1 if each in b"[{" else -1 for each in bare.translate(None, _BRACKETS))
    return max(accumulate(steps), default=0)


def _values(bare: bytes) -> int:
    """Each value but the first stands at the begin of its container, or after a comma."""
    openings = bare.count(b"[") + bare.count(b"{") - bare.count(b"[]") - bare.count(b"{}")
    return 1 + openings + bare.count(b",")


def _digits(bare: bytes) -> int:
    numbers = (abs(float(each)) for each in _NUMBER.findall(bare))
    return sum(int(abs(math.log10(each))) for each in numbers if each)
