"""docs/semantics.md, 3: after the pivot there is only forward recovery."""

from datetime import timedelta

import pytest

from saga_engine import Saga
from saga_engine.decider.commands import wake_at
from saga_engine.decider.run import StepStatus
from saga_engine.vocabulary import Status
from tests.kit.decider_scenario import COMPENSATION, DeciderScenario, add_step, sequential_saga


def past_pivot(**options) -> DeciderScenario:
    scenario = DeciderScenario(sequential_saga("a", "p", "z", pivot="p", **options))
    scenario.succeeds("a")
    scenario.succeeds("p")
    return scenario


def test_rule_3_a_retriable_step_that_runs_out_of_attempts_opens_an_incident():
    scenario = past_pivot()
    scenario.attempts_exhausted("z")
    assert scenario.incident.cause == "step_unknown"
    assert scenario.incident.message.startswith("timeout: No reply")
    assert scenario.status is Status.RUNNING
    assert scenario.progress_of("z").status is StepStatus.BLOCKED


def test_rule_3_a_retriable_step_that_keeps_failing_opens_an_incident():
    scenario = past_pivot()
    scenario.fails("z")
    scenario.timer_fires()
    scenario.fails("z")
    assert scenario.incident.cause == "step_failed"


def test_rule_3_a_retriable_step_that_is_rejected_opens_an_incident():
    scenario = past_pivot()
    scenario.rejects("z", "closed")
    assert scenario.incident.cause == "step_rejected"
    assert scenario.incident.message == "closed"
    assert scenario.status is Status.RUNNING


def test_rule_3_after_the_pivot_nothing_is_compensated():
    scenario = past_pivot(deadline=timedelta(minutes=1))
    scenario.attempts_exhausted("z")
    scenario.timer_fires(timedelta(hours=1))
    scenario.cancels()
    assert {send.direction for send in scenario.sends}.isdisjoint({COMPENSATION})


def test_rule_3_after_the_pivot_the_deadline_is_ignored():
    scenario = past_pivot(deadline=timedelta(seconds=5))
    scenario.timer_fires(timedelta(seconds=6))
    assert scenario.last_decision.events == ()
    due = wake_at(scenario.saga, scenario.run)
    assert due is not None
    assert scenario.run.deadline is not None
    assert due > scenario.run.deadline


def test_a_run_whose_pivot_is_rejected_compensates():
    scenario = DeciderScenario(sequential_saga("a", "p", pivot="p"))
    scenario.succeeds("a")
    scenario.rejects("p")
    assert scenario.sent_commands == ["undo.a#1"]
    scenario.compensations_succeed("a")
    assert scenario.status is Status.COMPENSATED


@pytest.mark.parametrize("how", ["attempts_exhausted", "fails"])
def test_a_pivot_without_compensation_that_may_be_done_needs_a_person(how):
    scenario = DeciderScenario(sequential_saga("a", "p", pivot="p"))
    scenario.succeeds("a")
    if how == "attempts_exhausted":
        scenario.attempts_exhausted("p")
    else:
        scenario.fails("p")
        scenario.timer_fires()
        scenario.fails("p")
    assert scenario.incident.cause in ("step_unknown", "step_failed")
    assert scenario.status is Status.RUNNING


def undoable(*, read_only: bool = False) -> DeciderScenario:
    saga = Saga("undoable", version=1, input=dict)
    add_step(saga, "a")
    add_step(saga, "p", pivot=True, read_only=read_only, compensated=not read_only)
    add_step(saga, "z", compensated=False)
    scenario = DeciderScenario(saga)
    scenario.succeeds("a")
    return scenario


def test_a_pivot_with_a_compensation_that_may_be_done_is_compensated():
    scenario = undoable()
    scenario.attempts_exhausted("p")
    assert scenario.sent_commands == ["undo.p#1"]
    scenario.compensations_succeed("p")
    assert scenario.sent_commands == ["undo.a#1"]


def test_a_run_whose_read_only_pivot_is_given_up_compensates():
    scenario = undoable(read_only=True)
    scenario.attempts_exhausted("p")
    assert scenario.sent_commands == ["undo.a#1"]


def test_a_pivot_that_an_operator_completes_is_passed():
    scenario = DeciderScenario(sequential_saga("a", "p", "z", pivot="p"))
    scenario.succeeds("a")
    scenario.attempts_exhausted("p")
    scenario.resolves("complete")
    assert scenario.sent_commands == ["do.z#1"]
    assert scenario.cancels().refusal


def test_a_blocked_retriable_step_does_not_block_another():
    saga = Saga("after", version=1, input=dict)
    pivot = add_step(saga, "p", pivot=True, compensated=False)
    for name in ("x", "y"):
        add_step(saga, name, after=[pivot], compensated=False)
    add_step(saga, "y2", compensated=False)
    scenario = DeciderScenario(saga)
    scenario.succeeds("p")
    assert scenario.sent_commands == ["do.x#1", "do.y#1"]
    scenario.rejects("x")
    scenario.succeeds("y")
    assert scenario.sent_commands == ["do.y2#1"]
