"""A run as a value."""

from dataclasses import fields, replace

from saga_engine.decider.run import (
    STATE,
    Cause,
    Progress,
    Run,
    StepRun,
    StepStatus,
    first_open,
    restore,
    state_of,
)
from saga_engine.vocabulary import Direction, Failure, Status
from tests.saga.scenario import Story, fork, sequence

COLUMNS = {
    "run_id",
    "saga",
    "version",
    "fingerprint",
    "key",
    "input",
    "started_at",
    "deadline",
    "revision",
    "status",
    "finished_at",
}


def test_every_field_is_a_column_or_part_of_the_state():
    assert {item.name for item in fields(Run)} == COLUMNS | set(STATE)
    assert COLUMNS.isdisjoint(STATE)


def test_restore_gives_back_what_state_of_took():
    story = Story(fork())
    story.succeeds("root", {"x": 1})
    story.garbles("left")
    blank = replace(story.run, steps={}, incidents={}, incidents_ever=0)
    assert restore(blank, state_of(story.run)) == story.run


def test_a_step_that_has_not_begun_costs_nothing():
    assert state_of(Story(sequence("a", "b")).run)["steps"]["b"] == {}


def test_both_directions_are_found_by_name():
    step = StepRun(Progress(attempts=1), Progress(attempts=2))
    assert step.toward(Direction.ACTION).attempts == 1
    assert step.toward(Direction.COMPENSATION).attempts == 2


def test_a_step_may_have_an_effect_unless_nothing_arrived_or_it_was_rejected():
    assert not StepRun().may_have_effect
    assert StepRun(Progress(attempts=1)).may_have_effect
    assert not StepRun(Progress(attempts=1, returned=1)).may_have_effect
    assert not StepRun(Progress(attempts=1, rejected=True)).may_have_effect
    assert StepRun(Progress(StepStatus.SUCCEEDED)).may_have_effect


def test_a_step_is_undone_when_confirmed_or_taken_responsibility_for():
    undone = {s for s in StepStatus if StepRun(compensation=Progress(s)).undone}
    assert undone == {StepStatus.SUCCEEDED, StepStatus.SKIPPED}


def test_a_run_is_finished_in_three_statuses():
    assert {status for status in Status if status.finished} == {
        Status.COMPLETED,
        Status.COMPENSATED,
        Status.ABANDONED,
    }


def test_a_failure_is_told_by_code_and_message():
    assert Failure("no", "Sold out.").text == "no: Sold out."
    assert Failure("no").text == "no"


def test_whoever_waits_is_told_the_failure_or_else_the_reason():
    assert Cause("rejected", "a", Failure("no", "Sold out.")).told == Failure("no", "Sold out.")
    assert Cause("cancelled", by="ann", reason="why").told == Failure("cancelled", "why")
    assert Cause("deadline").told == Failure("deadline")


def test_the_first_open_incident_is_told_without_what_a_client_must_not_see():
    story = Story(sequence("a"))
    assert first_open(story.run) is None
    story.garbles("a")
    found = first_open(story.run)
    assert found is not None
    assert found.text("r-1") == (
        f"incident r-1/1: {story.incident.cause} at step a (action),"
        f" since {story.now:%Y-%m-%d %H:%M:%S} UTC"
    )
    assert story.incident.message not in repr(found)
