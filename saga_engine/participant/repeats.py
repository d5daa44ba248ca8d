"""Failures that repeat: each is reported once, and then once in a while with their number."""

import asyncio

KINDS = 256
"""Failures that are told apart; one more, and all are new again."""


class Repeats:
    """
    Counts failures by what they have in common.

    Args:
        interval: seconds between two reports of the same failure.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._seen: dict[tuple[str, ...], tuple[float, int]] = {}

    def of(self, *failure: str) -> int | None:
        """Count a failure: how many there were since the last report, None when none is due."""
        now = asyncio.get_running_loop().time()
        until, count = self._seen.get(failure, (now, 0))
        if now < until:
            self._seen[failure] = until, count + 1
            return None
        if failure not in self._seen and len(self._seen) >= KINDS:
            self._seen.clear()
        self._seen[failure] = now + self._interval, 0
        return count
