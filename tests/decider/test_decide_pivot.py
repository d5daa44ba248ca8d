"""docs/semantics.md, 3: after the pivot there is only forward recovery."""

from datetime import timedelta

import pytest

from saga_engine import Saga
from saga_engine.decider.effects import wake_at
from saga_engine.decider.run import StepStatus
from saga_engine.vocabulary import Status
from tests.kit.decider_scenario import COMPENSATION, DeciderScenario, add_step, sequential_saga


def past_pivot(**options) -> DeciderScenario:
    story = DeciderScenario(sequential_saga("a", "p", "z", pivot="p", **options))
    story.succeeds("a")
    story.succeeds("p")
    return story


def test_rule_3_a_retriable_step_that_runs_out_of_attempts_opens_an_incident():
    story = past_pivot()
    story.attempts_exhausted("z")
    assert story.incident.cause == "step_unknown"
    assert story.incident.message.startswith("timeout: No reply")
    assert story.status is Status.RUNNING
    assert story.progress_of("z").status is StepStatus.BLOCKED


def test_rule_3_a_retriable_step_that_keeps_failing_opens_an_incident():
    story = past_pivot()
    story.fails("z")
    story.timer_fires()
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
    story.attempts_exhausted("z")
    story.timer_fires(timedelta(hours=1))
    story.cancels()
    assert {send.direction for send in story.sends}.isdisjoint({COMPENSATION})


def test_rule_3_after_the_pivot_the_deadline_has_passed_its_meaning():
    story = past_pivot(deadline=timedelta(seconds=5))
    story.timer_fires(timedelta(seconds=6))
    assert story.last_decision.events == ()
    due = wake_at(story.saga, story.run)
    assert due is not None
    assert story.run.deadline is not None
    assert due > story.run.deadline


def test_a_pivot_that_is_rejected_turns_the_run_back():
    story = DeciderScenario(sequential_saga("a", "p", pivot="p"))
    story.succeeds("a")
    story.rejects("p")
    assert story.sent_commands == ["undo.a#1"]
    story.compensations_succeed("a")
    assert story.status is Status.COMPENSATED


@pytest.mark.parametrize("how", ["attempts_exhausted", "fails"])
def test_a_pivot_nobody_can_undo_that_may_be_done_needs_a_person(how):
    story = DeciderScenario(sequential_saga("a", "p", pivot="p"))
    story.succeeds("a")
    if how == "attempts_exhausted":
        story.attempts_exhausted("p")
    else:
        story.fails("p")
        story.timer_fires()
        story.fails("p")
    assert story.incident.cause in ("step_unknown", "step_failed")
    assert story.status is Status.RUNNING


def undoable(*, read_only: bool = False) -> DeciderScenario:
    saga = Saga("undoable", version=1, input=dict)
    add_step(saga, "a")
    add_step(saga, "p", pivot=True, read_only=read_only, compensated=not read_only)
    add_step(saga, "z", compensated=False)
    story = DeciderScenario(saga)
    story.succeeds("a")
    return story


def test_a_pivot_with_a_compensation_that_may_be_done_turns_back_and_is_compensated():
    story = undoable()
    story.attempts_exhausted("p")
    assert story.sent_commands == ["undo.p#1"]
    story.compensations_succeed("p")
    assert story.sent_commands == ["undo.a#1"]


def test_a_read_only_pivot_turns_back_when_it_is_given_up():
    story = undoable(read_only=True)
    story.attempts_exhausted("p")
    assert story.sent_commands == ["undo.a#1"]


def test_a_pivot_that_an_operator_completes_is_passed():
    story = DeciderScenario(sequential_saga("a", "p", "z", pivot="p"))
    story.succeeds("a")
    story.attempts_exhausted("p")
    story.resolves("complete")
    assert story.sent_commands == ["do.z#1"]
    assert story.cancels().refusal


def test_retriable_steps_beside_each_other_go_on_when_one_is_blocked():
    saga = Saga("after", version=1, input=dict)
    pivot = add_step(saga, "p", pivot=True, compensated=False)
    for name in ("x", "y"):
        add_step(saga, name, after=[pivot], compensated=False)
    add_step(saga, "y2", compensated=False)
    story = DeciderScenario(saga)
    story.succeeds("p")
    assert story.sent_commands == ["do.x#1", "do.y#1"]
    story.rejects("x")
    story.succeeds("y")
    assert story.sent_commands == ["do.y2#1"]
