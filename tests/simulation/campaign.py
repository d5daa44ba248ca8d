"""Many simulations in a row, their figures, and what becomes of one that breaks a promise."""

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from simulation.faults import Faults
from simulation.repro import Case, smaller
from simulation.world import SETTINGS, Setup, simulate
from tests.simulation.plays import plays_of

REGRESSIONS = Path(__file__).parent / "regressions"


@dataclass
class Figures:
    """What a campaign did; `cases` are the seeds that broke a promise, made small."""

    base: int
    seeds: int = 0
    runs: int = 0
    seconds: float = 0.0
    statuses: Counter = field(default_factory=Counter)
    counts: Counter = field(default_factory=Counter)
    faults: Counter = field(default_factory=Counter)
    cases: list = field(default_factory=list)

    def __str__(self):
        each = self.seconds * 1000 / max(1, self.runs)
        lines = [
            f"base seed {self.base}: {self.seeds} seeds, {self.runs} runs",
            f"violations: {len(self.cases)}",
            f"time: {self.seconds:.0f} s, {each:.1f} ms a run",
            f"runs: {_told(self.statuses)}",
            f"faults: {self.faults.total()} ({_told(self.faults)})",
            f"events: {_told(self.counts)}",
        ]
        lines += [f"VIOLATION {case.violations}\n{case.as_json()}" for case in self.cases]
        return "\n".join(lines)


def campaign(base, seeds, runs, *, cases=3):
    """Simulate that many seeds from `base` on, or until so many cases have broken a promise."""
    figures = Figures(base)
    begun = time.perf_counter()
    for seed in range(base, base + seeds):
        outcome = simulate(setup_of(seed, runs), plays_of(seed))
        figures.seeds += 1
        figures.runs += outcome.runs
        figures.statuses += outcome.statuses
        figures.counts += outcome.counts
        figures.faults.update(fault.kind.value for fault in outcome.faults)
        if outcome.violations:
            failing = Case(setup_of(seed, runs), tuple(outcome.faults), tuple(outcome.violations))
            figures.cases.append(smaller(failing, retry))
            if len(figures.cases) == cases:
                break
    figures.seconds = time.perf_counter() - begun
    return figures


def setup_of(seed, runs):
    """Small and large, calm, stormy and crowded worlds in turn."""
    places = {"places": 4} if seed % 5 == 0 else {}
    return Setup(
        seed,
        runs=runs,
        **places,
        hostile=runs // 3 if seed % 2 == 0 else 0,
        acts=runs if seed % 4 < 2 else 0,
        retention=seed % 6 == 0,
        batch_bytes=1000 if seed % 7 == 0 else SETTINGS.batch_bytes,
        workers=1 + seed % 3,
        participants=1 + seed % 2,
        every=(30, 60, 120, 400)[seed % 4],
    )


def retry(case):
    """What a case breaks when it is simulated."""
    faults = Faults(planned=case.faults)
    return simulate(case.setup, plays_of(case.setup.seed), faults).violations


def keep(case):
    """Write a failing case where test_regressions finds it."""
    REGRESSIONS.mkdir(exist_ok=True)
    path = REGRESSIONS / f"{case.setup.seed}.json"
    path.write_text(case.as_json())
    return path


def _told(counter):
    return ", ".join(f"{name} {number}" for name, number in sorted(counter.items()))
