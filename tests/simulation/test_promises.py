"""
P1 to P7 in 6,000 simulated runs under faults, with a new seed each time.

SIMULATION_SEED=... replays a failure. Save a repro that is printed as JSON in regressions/.
"""

import os
import time

import pytest

from simulation.faults import FaultKind
from tests.simulation.campaign import run_campaign

pytestmark = pytest.mark.long

RUNS, PARTS, IN_EACH = 3_200, 4, 100
BASE = int(os.environ.get("SIMULATION_SEED") or time.time())
SEEDS = RUNS // PARTS // IN_EACH


@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(PARTS))
def test_every_promise_holds_under_faults(part, record_property, capsys):
    summary = run_campaign(BASE + part * SEEDS, SEEDS, IN_EACH, max_repros=1)
    record_property("simulation", str(summary))
    with capsys.disabled():
        print(f"\nSIMULATION_SEED={BASE}, part {part}: {summary}")  # noqa: T201 - for the log of CI
    assert not summary.repros
    assert summary.runs >= RUNS // PARTS
    assert summary.statuses["completed"] > summary.runs / 4, "most runs must finish"
    assert summary.statuses["compensated"] > summary.runs / 20
    assert summary.counts["crashes"] > SEEDS
    assert set(summary.faults) == set(FaultKind), "every kind of fault was injected"
