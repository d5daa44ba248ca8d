"""What repeats: reported a few times, and then once in a while with the number in between."""

import time
from collections.abc import Callable

KINDS = 256
"""Kinds that are told apart; one more, and all are new again."""


class Repeats:
    """
    Counts occurrences by what they have in common.

    Args:
        interval: seconds in which at most `burst` of one kind are reported.
        clock: seconds, from any moment on.
    """

    def __init__(
        self, interval: float, *, burst: int = 1, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval = interval
        self._burst = burst
        self._clock = clock
        self._seen: dict[tuple[object, ...], tuple[float, int]] = {}

    def of(self, *kind: object) -> int | None:
        """Count one: how many were not reported since the last report; None: nor is this one."""
        now = self._clock()
        until, count = self._seen.get(kind, (now, 0))
        if now < until:
            self._seen[kind] = until, count + 1
            return 0 if count + 1 < self._burst else None
        if kind not in self._seen and len(self._seen) >= KINDS:
            self._seen.clear()
        self._seen[kind] = now + self._interval, 0
        return max(0, count - self._burst + 1)
