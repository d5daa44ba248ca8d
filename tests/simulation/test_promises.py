"""
P1 to P7 over 6,000 simulated runs under faults, from a seed that is fresh each time.

SIMULATION_SEED=... replays one. A case that is printed as JSON belongs into regressions/.
"""

import os
import time

import pytest

from simulation.faults import FaultKind
from tests.simulation.campaign import run_campaign

RUNS, PARTS, IN_EACH = 6_000, 4, 100
BASE = int(os.environ.get("SIMULATION_SEED") or time.time())
SEEDS = RUNS // PARTS // IN_EACH


@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(PARTS))
def test_every_promise_holds_whatever_crashes_and_whatever_is_lost(part, record_property, capsys):
    figures = run_campaign(BASE + part * SEEDS, SEEDS, IN_EACH, max_repros=1)
    record_property("simulation", str(figures))
    with capsys.disabled():
        print(f"\nSIMULATION_SEED={BASE}, part {part}: {figures}")  # noqa: T201 - to be found in CI's log
    assert not figures.repros
    assert figures.runs >= RUNS // PARTS
    assert figures.statuses["completed"] > figures.runs / 4, "the simulation must get somewhere"
    assert figures.statuses["compensated"] > figures.runs / 20
    assert figures.counts["crashes"] > SEEDS
    assert set(figures.faults) == set(FaultKind), "every kind of fault has struck"
