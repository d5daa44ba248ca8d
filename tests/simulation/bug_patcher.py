"""
Plants a bug: replaces a function of the engine during one test.

The signature of the replacement is compared with that of the original. A replacement that is out of
date would raise a TypeError in the engine, and the simulation would find that error instead of the
bug.
"""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

MISMATCH_ERRORS = ("AttributeError", "TypeError", "NameError", "KeyError")
"""What a replacement raises that is out of date; no planted bug raises these on purpose."""


class SignatureMismatch(AssertionError):
    """A replacement and the original have different signatures."""


class BugPatcher:
    """Replaces functions until the end of the test."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    def replace(self, owner: object, name: str, new: Callable[..., Any] | property) -> None:
        """
        Replace `owner.name`.

        Raises:
            SignatureMismatch: `owner` has no such function, or it has another signature.
        """
        old = inspect.getattr_static(owner, name, None)
        if signature_of(old) != signature_of(new):
            raise SignatureMismatch(
                f"{name} is {signature_of(old)}; the planted bug has {signature_of(new)}"
            )
        self._patch.setattr(owner, name, new)


def signature_of(found: Any) -> tuple[str, ...]:
    """What a caller depends on: a function, a coroutine function or a property; its parameters."""
    if isinstance(found, property):
        return ("a property",)
    if not callable(found):
        return (f"not callable: {type(found).__name__}",)
    kind = "a coroutine function" if inspect.iscoroutinefunction(found) else "a function"
    parameters = inspect.signature(found).parameters.values()
    return (kind, *map(_parameter, parameters))


def _parameter(parameter: inspect.Parameter) -> str:
    """The kind, the name without the underscore of an unused parameter, and the default."""
    default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
    return f"{parameter.kind.description} {parameter.name.lstrip('_')}{default}"


def mismatch_violations(violations: list[str]) -> list[str]:
    """The violations that a replacement that is out of date caused."""
    return [each for each in violations if any(name in each for name in MISMATCH_ERRORS)]
