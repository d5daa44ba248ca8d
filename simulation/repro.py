"""
A failing simulation as a file, and how it is made smaller: fewer faults, runs, processes.

A case says with which seed, how large and with which faults a promise was broken. It holds as long
as the code passes the same points; after that it is a seed like any other. Faults are left out by
delta debugging (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

from simulation.faults import Fault, Kind
from simulation.world import Setup

TRIES = 300
"""Simulations that are spent on making one case smaller."""


@dataclass(frozen=True, slots=True)
class Case:
    """What it takes to break a promise, and what was broken."""

    setup: Setup
    faults: tuple[Fault, ...]
    violations: tuple[str, ...] = ()

    def as_json(self) -> str:
        """Write it down."""
        faults = [[fault.number, fault.kind.value, fault.seconds] for fault in self.faults]
        document = {"setup": asdict(self.setup), "faults": faults, "broke": list(self.violations)}
        return json.dumps(document, indent=1) + "\n"


def read(text: str) -> Case:
    """Read what `as_json` wrote."""
    document = json.loads(text)
    faults = [Fault(number, Kind(kind), seconds) for number, kind, seconds in document["faults"]]
    return Case(Setup(**document["setup"]), tuple(faults), tuple(document["broke"]))


Retry = Callable[[Case], Sequence[str]]
"""Simulates a case; the violations."""


def smaller(case: Case, retry: Retry) -> Case:
    """Make a failing case as small as a bounded number of tries allows; it still fails."""
    shrinking = _Shrinking(case, retry)
    shrinking.leave_out_faults()
    shrinking.shrink_the_world()
    shrinking.leave_out_faults()
    return shrinking.case


class _Shrinking:
    """`case` is the smallest so far that fails."""

    def __init__(self, case: Case, retry: Retry) -> None:
        self.case = case
        self._retry = retry
        self._left = TRIES

    def leave_out_faults(self) -> None:
        """Leave out half of the faults, then quarters, and so on, as long as it still fails."""
        size = max(1, len(self.case.faults) // 2)
        while self._left > 0:
            if not self._without_some(size):
                if size == 1:
                    return
                size = max(1, size // 2)

    def shrink_the_world(self) -> None:
        """Halve the runs and what is done to them, and the processes, as long as it still fails."""
        least = {"acts": 0, "hostile": 0, "runs": 1, "workers": 1, "participants": 1}
        for name, fewest in least.items():
            number = getattr(self.case.setup, name)
            while number > fewest and self._fails(
                replace(self.case, setup=replace(self.case.setup, **{name: number // 2}))
            ):
                number //= 2

    def _without_some(self, size: int) -> bool:
        faults = self.case.faults
        for first in range(0, len(faults), size):
            if self._fails(replace(self.case, faults=faults[:first] + faults[first + size :])):
                return True
        return False

    def _fails(self, case: Case) -> bool:
        self._left -= 1
        violations = self._retry(case) if self._left >= 0 else ()
        if violations:
            self.case = replace(case, violations=tuple(violations[:3]))
        return bool(violations)
