"""docs/semantics.md, 3: after the pivot there is only forward recovery."""

from datetime import timedelta

import pytest

from saga_engine import Saga
from saga_engine.decider.effects import wake_at
from saga_engine.decider.run import StepStatus
from saga_engine.vocabulary import Status
from tests.saga.scenario import COMPENSATION, Story, add, sequence


def past_pivot(**options) -> Story:
    story = Story(sequence("a", "p", "z", pivot="p", **options))
    story.succeeds("a")
    story.succeeds("p")
    return story


def test_rule_3_a_retriable_step_that_runs_out_of_attempts_opens_an_incident():
    story = past_pivot()
    story.exhausts("z")
    assert story.incident.cause == "step_unknown"
    assert story.incident.message.startswith("timeout: No reply")
    assert story.status is Status.RUNNING
    assert story.at("z").status is StepStatus.BLOCKED


def test_rule_3_a_retriable_step_that_keeps_failing_opens_an_incident():
    story = past_pivot()
    story.fails("z")
    story.wakes()
    story.fails("z")
    assert story.incident.cause == "step_failed"


def test_rule_3_a_retriable_step_that_is_rejected_opens_an_incident():
    story = past_pivot()
    story.rejects("z", "closed")
    assert story.incident.cause == "step_rejected"
    assert story.incident.message == "closed"
    assert story.status is Status.RUNNING


def test_rule_3_after_the_pivot_nothing_is_compensated():
    story = past_pivot(deadline=timedelta(minutes=1))
    story.exhausts("z")
    story.wakes(timedelta(hours=1))
    story.cancels()
    assert {send.direction for send in story.sends}.isdisjoint({COMPENSATION})


def test_rule_3_after_the_pivot_the_deadline_has_passed_its_meaning():
    story = past_pivot(deadline=timedelta(seconds=5))
    story.wakes(timedelta(seconds=6))
    assert story.last.events == ()
    due = wake_at(story.saga, story.run)
    assert due is not None
    assert story.run.deadline is not None
    assert due > story.run.deadline


def test_a_pivot_that_is_rejected_turns_the_run_back():
    story = Story(sequence("a", "p", pivot="p"))
    story.succeeds("a")
    story.rejects("p")
    assert story.sent == ["undo.a#1"]
    story.undone("a")
    assert story.status is Status.COMPENSATED


@pytest.mark.parametrize("how", ["exhausts", "fails"])
def test_a_pivot_nobody_can_undo_that_may_be_done_needs_a_person(how):
    story = Story(sequence("a", "p", pivot="p"))
    story.succeeds("a")
    if how == "exhausts":
        story.exhausts("p")
    else:
        story.fails("p")
        story.wakes()
        story.fails("p")
    assert story.incident.cause in ("step_unknown", "step_failed")
    assert story.status is Status.RUNNING


def undoable(*, read_only: bool = False) -> Story:
    saga = Saga("undoable", version=1, input=dict)
    add(saga, "a")
    add(saga, "p", pivot=True, read_only=read_only, undo=not read_only)
    add(saga, "z", undo=False)
    story = Story(saga)
    story.succeeds("a")
    return story


def test_a_pivot_with_a_compensation_that_may_be_done_turns_back_and_is_compensated():
    story = undoable()
    story.exhausts("p")
    assert story.sent == ["undo.p#1"]
    story.undone("p")
    assert story.sent == ["undo.a#1"]


def test_a_read_only_pivot_turns_back_when_it_is_given_up():
    story = undoable(read_only=True)
    story.exhausts("p")
    assert story.sent == ["undo.a#1"]


def test_a_pivot_that_an_operator_completes_is_passed():
    story = Story(sequence("a", "p", "z", pivot="p"))
    story.succeeds("a")
    story.exhausts("p")
    story.resolves("complete")
    assert story.sent == ["do.z#1"]
    assert story.cancels().refused


def test_retriable_steps_beside_each_other_go_on_when_one_is_blocked():
    saga = Saga("after", version=1, input=dict)
    pivot = add(saga, "p", pivot=True, undo=False)
    for name in ("x", "y"):
        add(saga, name, after=[pivot], undo=False)
    add(saga, "y2", undo=False)
    story = Story(saga)
    story.succeeds("p")
    assert story.sent == ["do.x#1", "do.y#1"]
    story.rejects("x")
    story.succeeds("y")
    assert story.sent == ["do.y2#1"]
