"""Runs many simulations and summarizes them; reduces those that break a promise."""

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from simulation.config import SETTINGS, SimulationConfig
from simulation.faults import FaultInjector
from simulation.repro import Repro, shrink
from simulation.world import simulate
from tests.simulation.workloads import workloads_for

EVENT_SEEDS = (0, 3, 4)
"""Seeds with events and processes that stand still, as their remainder by 8; others are shorter."""

REPLY_QUEUES = {2: (4, 1), 5: (1, 3), 8: (3, 5, 2, 1), 9: (4,)}
"""The numbers of queues of replies of a seed, by its remainder by 11; others have one queue."""

REGRESSIONS = Path(__file__).parent / "regressions"


@dataclass
class CampaignSummary:
    """The summary of a campaign; `repros` are reduced simulations that broke a promise."""

    base_seed: int
    seeds: int = 0
    runs: int = 0
    seconds: float = 0.0
    statuses: Counter = field(default_factory=Counter)
    counts: Counter = field(default_factory=Counter)
    faults: Counter = field(default_factory=Counter)
    repros: list = field(default_factory=list)

    def __str__(self):
        each = self.seconds * 1000 / max(1, self.runs)
        lines = [
            f"base seed {self.base_seed}: {self.seeds} seeds, {self.runs} runs",
            f"violations: {len(self.repros)}",
            f"time: {self.seconds:.0f} s, {each:.1f} ms a run",
            f"runs: {_format_counts(self.statuses)}",
            f"faults: {self.faults.total()} ({_format_counts(self.faults)})",
            f"events: {_format_counts(self.counts)}",
        ]
        lines += [f"VIOLATION {repro.violations}\n{repro.to_json()}" for repro in self.repros]
        return "\n".join(lines)


def run_campaign(base, seeds, runs, *, max_repros=3):
    """Simulate `seeds` seeds from `base` on, or fewer if `max_repros` of them break a promise."""
    summary = CampaignSummary(base)
    started = time.perf_counter()
    for seed in range(base, base + seeds):
        outcome = simulate(config_for(seed, runs), workloads_for(seed))
        summary.seeds += 1
        summary.runs += outcome.runs
        summary.statuses += outcome.statuses
        summary.counts += outcome.counts
        summary.faults.update(fault.kind.value for fault in outcome.faults)
        if outcome.violations:
            failing = Repro(
                config_for(seed, runs), tuple(outcome.faults), tuple(outcome.violations)
            )
            summary.repros.append(shrink(failing, run_repro))
            if len(summary.repros) == max_repros:
                break
    summary.seconds = time.perf_counter() - started
    return summary


def config_for(seed, runs):
    """A configuration that depends on the seed: its size, its faults, its number of slots."""
    slots = {"slots": 4} if seed % 5 == 0 else {}
    return SimulationConfig(
        seed=seed,
        runs=runs,
        **slots,
        hostile_rows=runs // 3 if seed % 2 == 0 else 0,
        operator_actions=runs if seed % 4 < 2 else 0,
        retention=seed % 6 == 0,
        batch_bytes=1000 if seed % 7 == 0 else SETTINGS.max_batch_bytes,
        cache_bytes=0 if seed % 7 == 0 else 20_000 if seed % 3 == 1 else SETTINGS.run_cache_bytes,
        snapshot_interval=(1, 3, SETTINGS.run_snapshot_interval)[seed % 3],
        freezes=seed % 8 in EVENT_SEEDS,
        projectors=2 if seed % 8 in EVENT_SEEDS else 0,
        faulty_projection=seed % 8 == EVENT_SEEDS[1],
        workers=1 + seed % 3,
        participants=1 + seed % 2,
        reply_queues=REPLY_QUEUES.get(seed % 11, (1,)),
        fault_interval=(30, 60, 120, 400)[seed % 4],
    )


def run_repro(repro):
    """Simulate a repro and return its violations."""
    faults = FaultInjector(planned=repro.faults)
    return simulate(repro.config, workloads_for(repro.config.seed), faults).violations


def save_regression(repro):
    """Write a repro to regressions/, where test_repro.py replays it."""
    REGRESSIONS.mkdir(exist_ok=True)
    path = REGRESSIONS / f"{repro.config.seed}.json"
    path.write_text(repro.to_json())
    return path


def _format_counts(counter):
    return ", ".join(f"{name} {number}" for name, number in sorted(counter.items()))
