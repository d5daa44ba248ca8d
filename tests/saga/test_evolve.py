"""The fold: only what a journal of ours can hold is taken."""

import pytest

from saga_engine.decider.events import RunCompensated, RunStarted, RunStopping
from saga_engine.decider.evolve import TRANSITIONS, evolve, replay
from saga_engine.decider.run import Cause
from saga_engine.vocabulary import Status
from tests.saga.scenario import NOON, Story, sequence


def test_an_empty_journal_is_no_run():
    assert replay([]) is None


def test_a_run_starts_once():
    story = Story(sequence("a"))
    (start, *_) = story.journal
    assert isinstance(start, RunStarted)
    with pytest.raises(AssertionError, match="a run starts once"):
        evolve(story.run, start)


def test_nothing_comes_before_the_start():
    with pytest.raises(AssertionError, match="a run starts with run_started"):
        evolve(None, RunStopping(Cause("deadline")))


def test_a_status_follows_only_the_table():
    run = Story(sequence("a")).run
    with pytest.raises(AssertionError, match="running cannot become compensated"):
        evolve(run, RunCompensated(NOON))


def test_the_table_knows_every_status():
    assert set(TRANSITIONS) == set(Status)


def test_every_event_is_one_revision():
    story = Story(sequence("a"))
    story.succeeds("a")
    assert story.run.revision == len(story.journal) == 4
