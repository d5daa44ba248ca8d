"""
Using SIGALRM and the interval timer of the process temporarily, and restoring both.

A process has one interval timer (`ITIMER_REAL`), which pytest-timeout and others use too. While it
is borrowed, the previous timer does not fire. Afterwards it continues with its remaining time, and
fires immediately if that is over.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SHORTEST_DELAY = 1e-6
"""Seconds: the shortest time of an interval timer. 0 would disarm it."""


@contextmanager
def borrow_alarm(handler: Callable[[int, FrameType | None], None]) -> Iterator[bool]:
    """
    Handle SIGALRM with *handler* until the block ends; the timer is disarmed at its beginning.

    Yields:
        Whether the handler is set. Only the main thread may set one, and a handler that was not set
        from Python could not be restored; in these cases nothing is changed.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    previous_handler = signal.getsignal(signal.SIGALRM)
    if not in_main_thread or previous_handler is None:
        yield False
        return
    remaining, interval = signal.setitimer(signal.ITIMER_REAL, 0)
    started_at = time.monotonic()
    signal.signal(signal.SIGALRM, handler)
    try:
        yield True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous_handler)
        if remaining:
            elapsed = time.monotonic() - started_at
            signal.setitimer(signal.ITIMER_REAL, max(remaining - elapsed, SHORTEST_DELAY), interval)
