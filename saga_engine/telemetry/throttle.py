"""Limit repeated reports: a few per interval, then one with the number of suppressed ones."""

import time
from collections.abc import Callable

MAX_KEYS = 256
"""Number of kinds that are counted; with one more, all counts start again."""


class Throttle:
    """
    Counts occurrences by kind.

    Args:
        interval: seconds in which at most `burst` of one kind are reported.
        clock: a monotonic clock, in seconds.
    """

    def __init__(
        self, interval: float, *, burst: int = 1, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval = interval
        self._burst = burst
        self._clock = clock
        self._windows: dict[tuple[object, ...], tuple[float, int]] = {}

    def record(self, *key: object) -> int | None:
        """
        Count one occurrence of the kind *key*.

        Returns:
            The number of suppressed occurrences since the last report, or None if this one is
            suppressed too.
        """
        now = self._clock()
        window_end, count = self._windows.get(key, (now, 0))
        if now < window_end:
            self._windows[key] = window_end, count + 1
            return 0 if count + 1 < self._burst else None
        if key not in self._windows and len(self._windows) >= MAX_KEYS:
            self._windows.clear()
        self._windows[key] = now + self._interval, 0
        return max(0, count - self._burst + 1)
