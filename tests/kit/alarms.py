"""The SIGALRM of a caller, whose handler and timer must survive what is called."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def handled_alarms() -> Iterator[list[int]]:
    """Handle SIGALRM as a caller would; yield the signals that its handler received."""
    received: list[int] = []
    rest = signal.setitimer(signal.ITIMER_REAL, 0)  # the timer of the time limit of this test
    before = signal.signal(signal.SIGALRM, lambda number, _: received.append(number))
    try:
        yield received
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *rest)


def wait_for_alarm(received: list[int]) -> None:
    """Let pending signals arrive, until one has or the timeout is over."""
    for _ in range(6000):
        if received:
            break
        signal.sigtimedwait([], 0.01)
