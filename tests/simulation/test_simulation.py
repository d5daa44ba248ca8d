"""The simulation keeps its own word: what it simulates happens, and happens the same again."""

import os
import subprocess
import sys
from pathlib import Path

from simulation.faults import Faults
from simulation.world import Setup, simulate
from tests.simulation.plays import PLACE_ORDER, plays_of

ROOT = Path(__file__).parents[2]
AGAIN = """
from simulation.world import Setup, simulate
from tests.simulation.plays import plays_of
print(simulate(Setup({seed}), plays_of({seed})).digest)
"""


def test_without_faults_every_run_ends_and_every_promise_holds():
    outcome = simulate(Setup(1), [PLACE_ORDER], Faults())
    assert not outcome.violations
    assert outcome.runs == outcome.statuses["completed"] + outcome.statuses["compensated"] == 30
    assert outcome.statuses["completed"] > 15
    assert not outcome.faults


def test_with_faults_every_promise_holds_and_runs_complete_all_the_same():
    outcome = simulate(Setup(2, runs=60, every=30), plays_of(2))
    assert not outcome.violations
    assert outcome.counts["crashes"] > 5
    assert outcome.statuses["completed"] > 10


def test_a_seed_replays_exactly_in_another_process():
    digests = {simulate(Setup(3), plays_of(3)).digest}
    for hashes in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", AGAIN.format(seed=3)],
            env={**os.environ, "PYTHONHASHSEED": hashes},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(done.stdout.strip())
    assert len(digests) == 1


def test_the_faults_that_struck_strike_again_when_they_are_planned():
    by_chance = simulate(Setup(4), plays_of(4))
    planned = simulate(Setup(4), plays_of(4), Faults(planned=by_chance.faults))
    assert planned == by_chance


def test_another_seed_is_another_world():
    assert simulate(Setup(5), [PLACE_ORDER]).digest != simulate(Setup(6), [PLACE_ORDER]).digest
