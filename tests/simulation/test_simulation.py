"""The simulation finishes every run and is reproducible."""

import os
import subprocess
import sys
from pathlib import Path

from simulation.config import SimulationConfig
from simulation.faults import FaultInjector
from simulation.world import simulate
from tests.simulation.workloads import PLACE_ORDER, workloads_for

ROOT = Path(__file__).parents[2]
REPLAY = """
import sys, time
for name in ("monotonic", "perf_counter", "time"):
    def faster(clock=getattr(time, name)):
        return clock() * float(sys.argv[1])
    setattr(time, name, faster)
from simulation.config import SimulationConfig
from simulation.world import simulate
from tests.simulation.workloads import workloads_for
for seed in (8, 16):
    print(simulate(SimulationConfig(seed=seed, runs=8), workloads_for(seed)).digest)
"""
"""Prints digests on a machine on which everything seems to last longer by a factor."""


def test_without_faults_every_run_finishes_and_every_promise_holds():
    outcome = simulate(SimulationConfig(seed=1), [PLACE_ORDER], FaultInjector())
    assert not outcome.violations
    assert outcome.runs == outcome.statuses["completed"] + outcome.statuses["compensated"] == 30
    assert outcome.statuses["completed"] > 15
    assert not outcome.faults


def test_with_faults_every_promise_holds_and_runs_complete():
    outcome = simulate(SimulationConfig(seed=2, runs=60, fault_interval=30), workloads_for(2))
    assert not outcome.violations
    assert outcome.counts["crashes"] > 5
    assert outcome.statuses["completed"] > 10


def test_a_digest_depends_neither_on_hashes_nor_on_the_speed_of_the_machine():
    replays = [
        subprocess.Popen(
            [sys.executable, "-c", REPLAY, factor],
            env={**os.environ, "PYTHONHASHSEED": hashes},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for hashes, factor in (("0", "1"), ("1", "1"), ("random", "100000"))
    ]
    printed = [replay.communicate()[0] for replay in replays]
    assert len(printed[0].splitlines()) == 2
    assert set(printed) == {printed[0]}


def test_planned_faults_replay_a_simulation():
    sampled = simulate(SimulationConfig(seed=4), workloads_for(4))
    planned = simulate(
        SimulationConfig(seed=4), workloads_for(4), FaultInjector(planned=sampled.faults)
    )
    assert planned == sampled


def test_another_seed_gives_another_digest():
    assert (
        simulate(SimulationConfig(seed=5), [PLACE_ORDER]).digest
        != simulate(SimulationConfig(seed=6), [PLACE_ORDER]).digest
    )
