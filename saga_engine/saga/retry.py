"""How often and how soon the same command is sent again."""

import zlib
from dataclasses import dataclass
from datetime import timedelta

from saga_engine.backoff import Backoff


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """
    A step's or a compensation's own retry policy.

    Args:
        attempts: sends in all, the first included; 1 to 1,000.
        initial: delay before the second attempt.
        maximum: no delay is longer, jitter included.
        factor: each delay is this many times the one before; 1 to 10.
        jitter: 0 to 1; a delay is shortened by up to this share of it, so that runs which failed
            together do not come back together.

    The rules that hold the bounds are in `rules`, where the author's file and line are known.
    """

    attempts: int = 5
    initial: timedelta = timedelta(seconds=1)
    maximum: timedelta = timedelta(minutes=1)
    factor: float = 2.0
    jitter: float = 0.2

    def delay(self, failures: int, seed: str) -> timedelta:
        """
        Return how long to wait after *failures* attempts, 1 or more, have failed.

        The jitter comes from *seed*, not from dice: replaying a decision gives the same delay.

        Args:
            failures: attempts that have failed, 1 or more.
            seed: any text; the same text gives the same jitter.
        """
        backoff = Backoff(
            self.initial.total_seconds(), self.maximum.total_seconds(), self.factor, self.jitter
        )
        random = zlib.crc32(seed.encode()) / 0xFFFFFFFF
        return timedelta(seconds=backoff.delay(failures - 1, random))
