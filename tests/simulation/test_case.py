"""A failing simulation becomes a small one, and one that was kept never fails again."""

import pytest

from simulation.faults import Fault, Kind
from simulation.repro import Case, read, smaller
from simulation.world import Setup, simulate
from tests.simulation.bugs import BUGS
from tests.simulation.campaign import REGRESSIONS, campaign, retry, setup_of
from tests.simulation.planting import Planting
from tests.simulation.plays import plays_of

KEPT = sorted(REGRESSIONS.glob("*.json"))


def test_a_failing_simulation_is_made_small_and_fails_still(monkeypatch):
    plant, _ = BUGS["take_a_failed_commit_for_done"]
    plant(Planting(monkeypatch))
    outcome = simulate(setup_of(1, 10), plays_of(1))
    case = smaller(Case(setup_of(1, 10), tuple(outcome.faults)), retry)
    assert len(outcome.faults) > 10
    assert len(case.faults) <= 3
    assert case.setup.runs <= 10
    assert retry(case)
    monkeypatch.undo()
    assert not retry(case)


def test_a_campaign_reports_a_broken_promise_as_a_small_case(monkeypatch):
    plant, _ = BUGS["acknowledge_before_the_commit"]
    plant(Planting(monkeypatch))
    figures = campaign(base=0, seeds=1, runs=10)
    [case] = figures.cases
    assert (case.setup.runs, case.faults) == (1, ())
    assert case.violations[0] in str(figures)


def test_a_case_is_read_as_it_was_written():
    case = Case(Setup(7, runs=2, every=30), (Fault(3, Kind.DELAYED, 1.5),), ("P1: stuck",))
    assert read(case.as_json()) == case


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_what_once_failed_holds(path):
    assert not retry(read(path.read_text()))
