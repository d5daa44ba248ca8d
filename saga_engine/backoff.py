"""
The formula of exponential backoff with jitter.

It serves reconnects, duties, and retry policies: saga/retry.py computes with it when a step is
tried again.
"""

from dataclasses import dataclass

_MAX_EXPONENT = 64  # 10**64 exceeds every maximum and is still a float


@dataclass(frozen=True, slots=True)
class Backoff:
    """
    Delays that grow from `initial` to `maximum`.

    Args:
        initial: seconds before the first retry.
        maximum: seconds that no delay exceeds.
        factor: each delay is this many times the one before.
        jitter: 0 to 1; a delay is shortened by up to this share of it, so that processes which fail
            together do not retry together.
    """

    initial: float
    maximum: float
    factor: float = 2.0
    jitter: float = 0.0

    def delay(self, retry: int, random: float = 0.0) -> float:
        """
        Return the seconds to wait before a retry.

        Args:
            retry: 0 for the first retry, 1 for the second, and so on.
            random: a number from 0 to 1 that chooses the jitter; 0 gives the longest delay.
        """
        delay = min(self.maximum, self.initial * self.factor ** min(retry, _MAX_EXPONENT))
        return delay * (1 - self.jitter * random)
