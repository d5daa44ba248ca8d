"""The simulation has teeth: it finds every bug that is planted, and nothing where there is none."""

import pytest

from saga_engine.testing.world import simulate
from tests.simulation.bugs import BUGS
from tests.simulation.campaign import setup_of
from tests.simulation.plays import plays_of

SEEDS = range(96)
"""Each bug is found in one of these, and without it none of them breaks a promise."""

RUNS = 30


def broken(seed):
    return simulate(setup_of(seed, RUNS), plays_of(seed)).violations


def test_there_are_enough_bugs():
    assert len(BUGS) >= 20


@pytest.mark.timeout(300)
def test_without_a_bug_these_seeds_break_nothing():
    assert not [sentence for seed in SEEDS for sentence in broken(seed)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(name, monkeypatch, record_property):
    plant, promises = BUGS[name]
    plant(monkeypatch)
    for seed in SEEDS:
        found = [sentence for sentence in broken(seed) if sentence.startswith(promises)]
        if found:
            record_property("found", f"seed {seed}: {found[0]}")
            return
    raise AssertionError(f"{name} broke none of {promises} in {len(SEEDS)} seeds")
