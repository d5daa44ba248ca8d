"""Measures work without judging the machine's speed: call counts, and ratios of CPU times."""

import sys
from collections.abc import Callable
from time import process_time

MEASUREMENTS = 3
"""The minimum of several measurements is the least disturbed by other programs."""


def count_calls(work: Callable[[], object]) -> int:
    """Count the calls of Python and C functions in *work*."""
    counted = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return counted


def time_ratio(work: Callable[[int], object], small: int, large: int) -> float:
    """The CPU time of *work* for the large size, divided by that for the small size."""
    return _seconds(work, large) / max(_seconds(work, small), 1e-6)


def _seconds(work: Callable[[int], object], size: int) -> float:
    times = []
    for _ in range(MEASUREMENTS):
        start = process_time()
        work(size)
        times.append(process_time() - start)
    return min(times)
