"""The simulation finishes every run and is reproducible."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulation.config import SimulationConfig
from simulation.faults import FaultInjector
from simulation.world import simulate
from tests.simulation.workloads import PLACE_ORDER, workloads_for

ROOT = Path(__file__).parents[2]
REPLAY = """
from simulation.config import SimulationConfig
from simulation.world import simulate
from tests.simulation.workloads import workloads_for
print(simulate(SimulationConfig(seed={seed}), workloads_for({seed})).digest)
"""


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


@pytest.mark.long
def test_a_seed_gives_the_same_digest_in_another_process():
    digests = {simulate(SimulationConfig(seed=3), workloads_for(3)).digest}
    for hashes in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", REPLAY.format(seed=3)],
            env={**os.environ, "PYTHONHASHSEED": hashes},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(done.stdout.strip())
    assert len(digests) == 1


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
