"""The name that was probably meant by a misspelt one, for messages."""

from collections.abc import Iterable
from difflib import get_close_matches

LIKE, ALMOST_EQUAL = 0.6, 0.9
"""How alike two names are, from 0 to 1: one that may be meant, and one or two letters apart."""


def nearest_name(typed: str, names: Iterable[str], likeness: float = LIKE) -> str:
    """Return the name that is most like *typed*; empty if none is as like it."""
    return next(iter(get_close_matches(typed, [*names], n=1, cutoff=likeness)), "")


def did_you_mean(typed: str, names: Iterable[str]) -> str:
    """Return ` Did you mean NAME?`, to follow a sentence; empty if no name is like *typed*."""
    found = nearest_name(typed, names)
    return f" Did you mean {found}?" if found else ""
