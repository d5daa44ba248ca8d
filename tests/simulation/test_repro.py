"""A failing simulation is reduced, and a kept repro passes."""

import pytest

from simulation.config import SimulationConfig
from simulation.faults import Fault, FaultKind
from simulation.repro import Repro, parse_repro, shrink
from simulation.world import simulate
from tests.simulation.bug_patcher import BugPatcher
from tests.simulation.campaign import REGRESSIONS, config_for, run_campaign, run_repro
from tests.simulation.planted_bugs import BUGS
from tests.simulation.workloads import workloads_for

KEPT = sorted(REGRESSIONS.glob("*.json"))


@pytest.mark.long
def test_a_failing_simulation_is_reduced_and_still_fails(monkeypatch):
    plant, _ = BUGS["treat_failed_commit_as_committed"]
    plant(BugPatcher(monkeypatch))
    outcome = simulate(config_for(1, 10), workloads_for(1))
    repro = shrink(Repro(config_for(1, 10), tuple(outcome.faults)), run_repro)
    assert len(outcome.faults) > 10
    assert len(repro.faults) <= 3
    assert repro.config.runs <= 10
    assert run_repro(repro)
    monkeypatch.undo()
    assert not run_repro(repro)


@pytest.mark.long
def test_a_campaign_reports_a_broken_promise_as_a_reduced_repro(monkeypatch):
    plant, _ = BUGS["acknowledge_before_the_commit"]
    plant(BugPatcher(monkeypatch))
    summary = run_campaign(base=0, seeds=1, runs=10)
    [repro] = summary.repros
    assert (repro.config.runs, repro.faults) == (1, ())
    assert repro.violations[0] in str(summary)


def test_a_repro_round_trips_as_json():
    repro = Repro(
        SimulationConfig(seed=7, runs=2, fault_interval=30),
        (Fault(3, FaultKind.DELAYED, 1.5),),
        ("P1: stuck",),
    )
    assert parse_repro(repro.to_json()) == repro


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_a_kept_repro_passes(path):
    assert not run_repro(parse_repro(path.read_text()))
