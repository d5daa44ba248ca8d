"""The fold: only what a journal of ours can hold is taken."""

import pytest

from saga_engine.decider.events import RunCompensated, RunStarted, RunStopping
from saga_engine.decider.evolve import evolve, replay
from saga_engine.decider.run import CompensationCause
from saga_engine.decider.transitions import RUN_TRANSITIONS
from saga_engine.vocabulary import CompensationCode, Status
from tests.kit.decider_scenario import NOON, DeciderScenario, sequential_saga


def test_an_empty_journal_is_no_run():
    assert replay([]) is None


def test_a_run_starts_once():
    story = DeciderScenario(sequential_saga("a"))
    (start, *_) = story.journal
    assert isinstance(start, RunStarted)
    with pytest.raises(AssertionError, match="a run starts once"):
        evolve(story.run, start)


def test_nothing_comes_before_the_start():
    with pytest.raises(AssertionError, match="a run starts with run_started"):
        evolve(None, RunStopping(CompensationCause(code=CompensationCode.DEADLINE)))


def test_a_status_follows_only_the_table():
    run = DeciderScenario(sequential_saga("a")).run
    with pytest.raises(AssertionError, match="running cannot become compensated"):
        evolve(run, RunCompensated(NOON))


def test_the_table_knows_every_status():
    assert set(RUN_TRANSITIONS) == set(Status)


def test_every_event_is_one_revision():
    story = DeciderScenario(sequential_saga("a"))
    story.succeeds("a")
    assert story.run.revision == len(story.journal) == 4
