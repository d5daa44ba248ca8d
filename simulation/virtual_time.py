"""
An event loop in virtual time that never waits.

When no callback is ready, the clock jumps to the next timer. There is no input or output, so the
same coroutines run in the same order every time.
"""

import asyncio
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class DeadlockError(Exception):
    """No callback is ready and no timer is set: every task waits for another one."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose `time` is virtual and starts at 0."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_VirtualTimeSelector(self))

    def time(self) -> float:
        """Seconds of virtual time."""
        return self._now

    def advance(self, seconds: float | None) -> None:
        """Advance the clock; None means that no timer is set."""
        if seconds is None:
            raise DeadlockError("Every task waits for another one, and no timer is set.")
        self._now += max(0.0, seconds)


class _VirtualTimeSelector(selectors.BaseSelector):
    """Advances the clock instead of waiting for files."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._loop.advance(timeout)
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, 0, None)

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        raise KeyError(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return {}


def run(main: Coroutine[Any, Any, T]) -> T:
    """
    Run `main` in virtual time.

    Raises:
        DeadlockError: it can never finish.
    """
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
