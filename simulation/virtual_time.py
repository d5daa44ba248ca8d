"""
Virtual time: an event loop that never waits.

When nothing is ready, the clock jumps to the next timer. There is no input or output, so the same
coroutines do the same things in the same order every time, and an hour takes as long as what
happens in it.
"""

import asyncio
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class DeadlockError(Exception):
    """Nothing is ready and no timer runs: every task waits for another."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose `time` is virtual; it begins at 0."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_VirtualTimeSelector(self))

    def time(self) -> float:
        """Seconds of virtual time."""
        return self._now

    def advance(self, seconds: float | None) -> None:
        """Let that time pass; None: nothing will ever happen any more."""
        if seconds is None:
            raise DeadlockError("Every task waits for another, and no timer runs.")
        self._now += max(0.0, seconds)


class _VirtualTimeSelector(selectors.BaseSelector):
    """Passes time instead of waiting for files, of which the loop itself registers one."""

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
    Run *main* in virtual time.

    Raises:
        DeadlockError: it can never end.
    """
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
