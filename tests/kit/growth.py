"""How much work something is, without a clock's verdict: counts, and ratios within one process."""

import sys
from collections.abc import Callable
from time import process_time

MEASUREMENTS = 3
"""The least of several measurements is the one that other programs disturbed least."""


def count_calls(work: Callable[[], object]) -> int:
    """Count the functions that *work* calls, its own and the interpreter's."""
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
    """How many times as much CPU *work* needs for the large size as for the small one."""
    return _seconds(work, large) / max(_seconds(work, small), 1e-6)


def _seconds(work: Callable[[int], object], size: int) -> float:
    found = []
    for _ in range(MEASUREMENTS):
        began = process_time()
        work(size)
        found.append(process_time() - began)
    return min(found)
