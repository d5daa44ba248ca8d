"""
Plants a bug: replaces a function of the engine, or methods of its database, during one test.

The signature of the replacement is compared with that of the original, a method of the database
with that of `StoreTransaction`. A replacement that is out of date would raise a TypeError in the
engine, and the simulation would find that error instead of the bug.
"""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from saga_engine.store.interfaces import StoreTransaction
from simulation import memory_store
from simulation.memory_store import MemoryStoreTransaction

MISMATCH_ERRORS = ("AttributeError", "TypeError", "NameError", "KeyError", "NoStatement")
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
        _compare(owner, name, new)
        self._patch.setattr(owner, name, new)

    def replace_store(self, transactions: type[MemoryStoreTransaction]) -> None:
        """
        Give every process transactions of a class that overrides methods.

        Raises:
            SignatureMismatch: there is no such method, or it has another signature.
        """
        overridden = {
            name: method for name, method in vars(transactions).items() if callable(method)
        }
        assert overridden, "the class overrides nothing"
        for name, method in overridden.items():
            owner = StoreTransaction if hasattr(StoreTransaction, name) else MemoryStoreTransaction
            _compare(owner, name, method)
        self._patch.setattr(memory_store, "MemoryStoreTransaction", transactions)


def _compare(owner: object, name: str, new: Callable[..., Any] | property) -> None:
    old = inspect.getattr_static(owner, name, None)
    if signature_of(old) != signature_of(new):
        raise SignatureMismatch(
            f"{name} is {signature_of(old)}; the planted bug has {signature_of(new)}"
        )


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
