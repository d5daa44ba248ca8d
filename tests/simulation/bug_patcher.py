"""
Planting a bug: one name of the engine is replaced for the time of a test.

A replacement is compared with what it replaces. One that no longer has the same parameters, or is
no longer a coroutine function where the original is one, would raise a TypeError in the engine, and
the simulation would find that error and not the bug.
"""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

MISMATCH_ERRORS = ("AttributeError", "TypeError", "NameError", "KeyError")
"""What a replacement raises that does not fit the engine. No planted bug is meant to raise it."""


class SignatureMismatch(AssertionError):
    """A replacement has another shape than what it replaces."""


class BugPatcher:
    """Replaces names until the test is over."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    def replace(self, owner: object, name: str, new: Callable[..., Any] | property) -> None:
        """
        Replace `owner.name`.

        Raises:
            DoesNotFit: `owner` has no such name, or it has another shape than *new*.
        """
        old = inspect.getattr_static(owner, name, None)
        if signature_of(old) != signature_of(new):
            raise SignatureMismatch(
                f"{name} is {signature_of(old)}; the planted bug has {signature_of(new)}"
            )
        self._patch.setattr(owner, name, new)


def signature_of(found: Any) -> tuple[str, ...]:
    """What a caller depends on: the kind of thing it is, and its parameters."""
    if isinstance(found, property):
        return ("a property",)
    if not callable(found):
        return (f"not callable: {type(found).__name__}",)
    kind = "a coroutine function" if inspect.iscoroutinefunction(found) else "a function"
    parameters = inspect.signature(found).parameters.values()
    return (kind, *map(_parameter, parameters))


def _parameter(parameter: inspect.Parameter) -> str:
    """Its name without the underscore of one that is not used, its kind, and its default."""
    default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
    return f"{parameter.kind.description} {parameter.name.lstrip('_')}{default}"


def mismatch_violations(violations: list[str]) -> list[str]:
    """Those violations that come from a replacement that does not fit."""
    return [each for each in violations if any(name in each for name in MISMATCH_ERRORS)]
