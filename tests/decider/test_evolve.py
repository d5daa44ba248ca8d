"""The fold of a journal: only events that `decide` can record are accepted."""

from copy import deepcopy

import pytest

from saga_engine.decider.events import RunCompensated, RunStarted, RunStopping, StepSkipped
from saga_engine.decider.evolve import evolve, replay
from saga_engine.decider.run import CompensationCause, StepStatus
from saga_engine.decider.transitions import RUN_TRANSITIONS, STEP_TRANSITIONS
from saga_engine.vocabulary import CompensationCode, Direction, Status
from tests.kit.decider_scenario import NOON, DeciderScenario, branching_saga, sequential_saga


def test_an_empty_journal_gives_none():
    assert replay([]) is None


def test_a_run_starts_once():
    scenario = DeciderScenario(sequential_saga("a"))
    (start, *_) = scenario.journal
    assert isinstance(start, RunStarted)
    with pytest.raises(AssertionError, match="a run starts once"):
        evolve(scenario.run, start)


def test_nothing_comes_before_the_start():
    with pytest.raises(AssertionError, match="a run starts with run_started"):
        evolve(None, RunStopping(CompensationCause(code=CompensationCode.DEADLINE)))


def test_a_status_follows_only_the_table():
    run = DeciderScenario(sequential_saga("a")).run
    with pytest.raises(AssertionError, match="running cannot become compensated"):
        evolve(run, RunCompensated(NOON))


@pytest.mark.parametrize("direction", Direction)
def test_a_status_of_a_step_follows_only_the_table(direction):
    run = DeciderScenario(sequential_saga("a")).run
    status = run.steps["a"].progress_of(direction).status
    with pytest.raises(AssertionError, match=f"a, {direction}: {status} cannot become skipped"):
        evolve(run, StepSkipped("a", direction))


def test_evolve_changes_no_run_that_it_is_given():
    scenario = DeciderScenario(branching_saga())
    scenario.succeeds("root")
    scenario.malformed_reply("left")
    scenario.resolves("retry")
    scenario.cancels()
    run = evolve(None, scenario.journal[0])
    for event in scenario.journal[1:]:
        copy = deepcopy(run)
        after = evolve(run, event)
        assert run == copy
        assert after != run
        assert after.steps is not run.steps
        run = after
    assert run == scenario.run


def test_the_tables_have_every_status():
    assert set(RUN_TRANSITIONS) == set(Status)
    for direction in Direction:
        assert set(STEP_TRANSITIONS[direction]) == set(StepStatus)
