"""docs/semantics.md, 6: steps in parallel."""

from datetime import timedelta

from saga_engine import Retry, Saga
from saga_engine.decider.run import StepStatus
from saga_engine.vocabulary import Status
from tests.kit.decider_scenario import (
    COMPENSATION,
    TWO_ATTEMPTS,
    DeciderScenario,
    add_step,
    branching_saga,
)


def test_branches_start_side_by_side_and_join():
    scenario = DeciderScenario(branching_saga())
    scenario.succeeds("root")
    assert scenario.sent_commands == ["do.left#1", "do.right#1"]
    scenario.succeeds("right")
    assert scenario.sent_commands == []
    scenario.succeeds("left")
    assert scenario.sent_commands == ["do.join#1"]
    scenario.succeeds("join")
    assert scenario.status is Status.COMPLETED


def test_rule_6_siblings_in_flight_settle_before_anything_is_compensated():
    scenario = DeciderScenario(branching_saga())
    scenario.succeeds("root")
    scenario.rejects("left")
    assert scenario.sent_commands == []
    assert scenario.run.stop_cause is not None
    before = scenario.status
    assert before is Status.RUNNING
    scenario.succeeds("right")
    assert scenario.status is Status.COMPENSATING
    assert scenario.run.compensation_cause is not None
    assert (scenario.run.compensation_cause.code, scenario.run.compensation_cause.step) == (
        "rejected",
        "left",
    )


def test_rule_6_nothing_new_starts():
    saga = Saga("long-branch", version=1, input=dict)
    add_step(saga, "x", after=[])
    first = add_step(saga, "y1", after=[])
    add_step(saga, "y2", after=[first])
    scenario = DeciderScenario(saga)
    scenario.rejects("x")
    scenario.succeeds("y1")
    assert scenario.progress_of("y2").attempts == 0
    assert scenario.sent_commands == ["undo.y1#1"]


def test_rule_6_a_sibling_awaiting_its_retry_is_not_tried_again():
    scenario = DeciderScenario(branching_saga())
    scenario.succeeds("root")
    scenario.fails("right")
    scenario.rejects("left")
    assert scenario.progress_of("right").status is StepStatus.FAILED
    assert scenario.sent_commands == ["undo.right#1"]


def test_rule_6_the_wake_up_that_gives_a_step_up_retries_no_sibling():
    saga = Saga("beside", version=1, input=dict)
    patient = Retry(attempts=5, initial=timedelta(seconds=30), jitter=0)
    add_step(saga, "x", after=[], retry=patient, timeout=timedelta(seconds=1))
    add_step(saga, "y", after=[], retry=Retry(attempts=1))
    scenario = DeciderScenario(saga)
    scenario.fails("x")
    scenario.timer_fires(timedelta(seconds=30))
    assert scenario.progress_of("x").attempts == 1
    assert scenario.sent_commands == ["undo.y#1", "undo.x#1"]


def test_rule_6_a_sibling_that_times_out_while_stopping_is_compensated():
    scenario = DeciderScenario(branching_saga())
    scenario.succeeds("root")
    scenario.rejects("left")
    scenario.timer_fires()
    assert scenario.progress_of("right").status is StepStatus.UNKNOWN
    assert scenario.sent_commands == ["undo.right#1"]


def test_rule_6_the_first_failure_is_the_cause():
    scenario = DeciderScenario(branching_saga())
    scenario.succeeds("root")
    scenario.rejects("left", "first")
    scenario.rejects("right", "second")
    assert scenario.run.compensation_cause is not None
    assert scenario.run.compensation_cause.failure is not None
    assert scenario.run.compensation_cause.failure.code == "first"


def test_rule_6_branches_are_compensated_in_parallel_and_in_reverse_order():
    saga = branching_saga()
    add_step(saga, "last")
    scenario = DeciderScenario(saga)
    for name in ("root", "left", "right", "join"):
        scenario.succeeds(name)
    scenario.rejects("last")
    assert scenario.sent_commands == ["undo.join#1"]
    scenario.compensations_succeed("join")
    assert scenario.sent_commands == ["undo.right#1", "undo.left#1"]
    scenario.compensations_succeed("left")
    assert scenario.sent_commands == []
    scenario.compensations_succeed("right")
    assert scenario.sent_commands == ["undo.root#1"]
    scenario.compensations_succeed("root")
    assert scenario.status is Status.COMPENSATED


def test_rule_6_a_step_waits_for_the_compensation_of_all_its_descendants():
    saga = Saga("chain", version=1, input=dict)
    first = add_step(saga, "a")
    second = add_step(saga, "look", after=[first], compensated=False, read_only=True)
    third = add_step(saga, "b", after=[second])
    add_step(saga, "c", after=[third])
    scenario = DeciderScenario(saga)
    for name in ("a", "look", "b"):
        scenario.succeeds(name)
    scenario.rejects("c")
    assert scenario.sent_commands == ["undo.b#1"]
    assert scenario.progress_of("a", COMPENSATION).attempts == 0


def test_a_blocked_branch_does_not_block_the_other():
    scenario = DeciderScenario(branching_saga())
    scenario.succeeds("root")
    scenario.malformed_reply("left")
    scenario.succeeds("right")
    assert scenario.progress_of("right").status is StepStatus.SUCCEEDED
    scenario.resolves("complete")
    assert scenario.sent_commands == ["do.join#1"]


def test_a_failing_branch_closes_the_incident_of_the_other():
    scenario = DeciderScenario(branching_saga())
    scenario.succeeds("root")
    scenario.malformed_reply("left")
    scenario.rejects("right")
    assert scenario.run.incidents == {}
    assert scenario.progress_of("left").status is StepStatus.FAILED
    assert scenario.sent_commands == ["undo.left#1"]


def test_steps_may_be_declared_in_any_order():
    saga = Saga("forward", version=1, input=dict)
    add_step(saga, "b", after=["a"], retry=TWO_ATTEMPTS)
    add_step(saga, "a", after=[])
    scenario = DeciderScenario(saga)
    assert scenario.sent_commands == ["do.a#1"]
    scenario.succeeds("a")
    assert scenario.sent_commands == ["do.b#1"]
