"""
Borrowing SIGALRM and the interval timer of the process, and giving both back as they were.

A process has one interval timer (`ITIMER_REAL`), which pytest-timeout and others use as well. While
it is borrowed, the caller's timer does not ring; it goes on afterwards with the rest of its time,
and rings at once if that is over.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

AT_ONCE = 1e-6
"""Seconds; the shortest time of an interval timer. 0 would disarm it."""


@contextmanager
def borrowed(ring: Callable[[int, FrameType | None], None]) -> Iterator[bool]:
    """
    Have *ring* handle SIGALRM until the block ends; the timer is disarmed at its beginning.

    Yields:
        Whether it does. Only the main thread may set a handler, and a handler that was not set from
        Python could not be restored; then nothing is changed.
    """
    here = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGALRM)
    if not here or before is None:
        yield False
        return
    left, interval = signal.setitimer(signal.ITIMER_REAL, 0)
    since = time.monotonic()
    signal.signal(signal.SIGALRM, ring)
    try:
        yield True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:
            passed = time.monotonic() - since
            signal.setitimer(signal.ITIMER_REAL, max(left - passed, AT_ONCE), interval)
