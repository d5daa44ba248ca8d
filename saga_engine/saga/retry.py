"""
The retry policy of a step: how many attempts, and the delay before each retry.

The delay of an attempt is computed here, by the formula of saga_engine/backoff.py, which reconnects
and duties use as well.
"""

import zlib
from dataclasses import dataclass
from datetime import timedelta

from saga_engine.backoff import Backoff


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """
    A step's or a compensation's own retry policy.

    Args:
        attempts: the number of sends, the first included; 1 to 1,000.
        initial: delay before the second attempt.
        maximum: no delay is longer, jitter included.
        factor: each delay is the previous one times this; 1 to 10.
        jitter: 0 to 1; a delay is shortened by up to this share, so that runs that failed together
            are not retried together.

    The bounds are checked in `rules`, where the author's file and line are known.
    """

    attempts: int = 5
    initial: timedelta = timedelta(seconds=1)
    maximum: timedelta = timedelta(minutes=1)
    factor: float = 2.0
    jitter: float = 0.2

    def delay(self, failures: int, seed: str) -> timedelta:
        """
        The delay after some failed attempts, with jitter from *seed*: a replay gives the same.

        Args:
            failures: attempts that have failed, 1 or more.
            seed: any text; the same text gives the same jitter.
        """
        backoff = Backoff(
            self.initial.total_seconds(), self.maximum.total_seconds(), self.factor, self.jitter
        )
        random = zlib.crc32(seed.encode()) / 0xFFFFFFFF
        return timedelta(seconds=backoff.delay(failures - 1, random))
