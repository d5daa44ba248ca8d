"""
A failing simulation as a JSON file, and how it is reduced to fewer faults, runs and processes.

A repro has the configuration and the faults with which a promise was broken. It reproduces the
failure as long as the code passes the same points; afterwards it is one more seed. Faults are
removed by delta debugging (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing
Input", 2002).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

from simulation.config import SimulationConfig
from simulation.faults import Fault, FaultKind

MAX_SHRINK_RUNS = 300
"""The number of simulations to reduce one repro."""


@dataclass(frozen=True, slots=True)
class Repro:
    """What reproduces a broken promise, and the violations."""

    config: SimulationConfig
    faults: tuple[Fault, ...]
    violations: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Serialize it."""
        faults = [[fault.point_number, fault.kind.value, fault.seconds] for fault in self.faults]
        document = {
            "config": asdict(self.config),
            "faults": faults,
            "violations": list(self.violations),
        }
        return json.dumps(document, indent=1) + "\n"


def parse_repro(text: str) -> Repro:
    """Parse what `to_json` returned."""
    document = json.loads(text)
    faults = [
        Fault(number, FaultKind(kind), seconds) for number, kind, seconds in document["faults"]
    ]
    config = document["config"]
    if "reply_queues" in config:
        config["reply_queues"] = tuple(config["reply_queues"])
    return Repro(SimulationConfig(**config), tuple(faults), tuple(document["violations"]))


ReproRunner = Callable[[Repro], Sequence[str]]
"""Simulates a repro and returns the violations."""


def shrink(repro: Repro, run_repro: ReproRunner) -> Repro:
    """Reduce a failing repro with a bounded number of simulations; the result still fails."""
    shrinker = _Shrinker(repro, run_repro)
    shrinker.remove_faults()
    shrinker.shrink_config()
    shrinker.remove_faults()
    return shrinker.repro


class _Shrinker:
    """`repro` is the smallest so far that fails."""

    def __init__(self, repro: Repro, run_repro: ReproRunner) -> None:
        self.repro = repro
        self._run_repro = run_repro
        self._runs_left = MAX_SHRINK_RUNS

    def remove_faults(self) -> None:
        """Remove half of the faults, then quarters, and so on, while the repro still fails."""
        size = max(1, len(self.repro.faults) // 2)
        while self._runs_left > 0:
            if not self._remove_chunk(size):
                if size == 1:
                    return
                size = max(1, size // 2)

    def shrink_config(self) -> None:
        """Halve the runs, the actions and the processes while the repro still fails."""
        minimums = {
            "operator_actions": 0,
            "hostile_rows": 0,
            "runs": 1,
            "workers": 1,
            "participants": 1,
        }
        for name, minimum in minimums.items():
            number = getattr(self.repro.config, name)
            while number > minimum and self._fails(
                replace(self.repro, config=replace(self.repro.config, **{name: number // 2}))
            ):
                number //= 2

    def _remove_chunk(self, size: int) -> bool:
        faults = self.repro.faults
        for first in range(0, len(faults), size):
            if self._fails(replace(self.repro, faults=faults[:first] + faults[first + size :])):
                return True
        return False

    def _fails(self, candidate: Repro) -> bool:
        self._runs_left -= 1
        violations = self._run_repro(candidate) if self._runs_left >= 0 else ()
        if violations:
            self.repro = replace(candidate, violations=tuple(violations[:3]))
        return bool(violations)
