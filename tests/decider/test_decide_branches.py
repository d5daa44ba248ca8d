"""docs/semantics.md, 6: parallel parts."""

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
    story = DeciderScenario(branching_saga())
    story.succeeds("root")
    assert story.sent_commands == ["do.left#1", "do.right#1"]
    story.succeeds("right")
    assert story.sent_commands == []
    story.succeeds("left")
    assert story.sent_commands == ["do.join#1"]
    story.succeeds("join")
    assert story.status is Status.COMPLETED


def test_rule_6_siblings_in_flight_settle_before_anything_is_compensated():
    story = DeciderScenario(branching_saga())
    story.succeeds("root")
    story.rejects("left")
    assert story.sent_commands == []
    assert story.run.stopping_cause is not None
    before = story.status
    assert before is Status.RUNNING
    story.succeeds("right")
    assert story.status is Status.COMPENSATING
    assert story.run.compensation_cause is not None
    assert (story.run.compensation_cause.code, story.run.compensation_cause.step) == (
        "rejected",
        "left",
    )


def test_rule_6_nothing_new_starts():
    saga = Saga("long-branch", version=1, input=dict)
    add_step(saga, "x", after=[])
    first = add_step(saga, "y1", after=[])
    add_step(saga, "y2", after=[first])
    story = DeciderScenario(saga)
    story.rejects("x")
    story.succeeds("y1")
    assert story.progress_of("y2").attempts == 0
    assert story.sent_commands == ["undo.y1#1"]


def test_rule_6_a_sibling_that_waits_for_its_retry_is_not_tried_again():
    story = DeciderScenario(branching_saga())
    story.succeeds("root")
    story.fails("right")
    story.rejects("left")
    assert story.progress_of("right").status is StepStatus.FAILED
    assert story.sent_commands == ["undo.right#1"]


def test_rule_6_a_sibling_is_not_retried_by_the_wake_up_that_gives_the_step_up():
    saga = Saga("beside", version=1, input=dict)
    patient = Retry(attempts=5, initial=timedelta(seconds=30), jitter=0)
    add_step(saga, "x", after=[], retry=patient, timeout=timedelta(seconds=1))
    add_step(saga, "y", after=[], retry=Retry(attempts=1))
    story = DeciderScenario(saga)
    story.fails("x")
    story.timer_fires(timedelta(seconds=30))
    assert story.progress_of("x").attempts == 1
    assert story.sent_commands == ["undo.y#1", "undo.x#1"]


def test_rule_6_a_sibling_that_times_out_while_stopping_is_compensated():
    story = DeciderScenario(branching_saga())
    story.succeeds("root")
    story.rejects("left")
    story.timer_fires()
    assert story.progress_of("right").status is StepStatus.UNKNOWN
    assert story.sent_commands == ["undo.right#1"]


def test_rule_6_the_first_failure_is_the_cause_though_a_sibling_fails_too():
    story = DeciderScenario(branching_saga())
    story.succeeds("root")
    story.rejects("left", "first")
    story.rejects("right", "second")
    assert story.run.compensation_cause is not None
    assert story.run.compensation_cause.failure is not None
    assert story.run.compensation_cause.failure.code == "first"


def test_rule_6_compensation_goes_in_reverse_dependency_order_branches_side_by_side():
    saga = branching_saga()
    add_step(saga, "last")
    story = DeciderScenario(saga)
    for name in ("root", "left", "right", "join"):
        story.succeeds(name)
    story.rejects("last")
    assert story.sent_commands == ["undo.join#1"]
    story.compensations_succeed("join")
    assert story.sent_commands == ["undo.right#1", "undo.left#1"]
    story.compensations_succeed("left")
    assert story.sent_commands == []
    story.compensations_succeed("right")
    assert story.sent_commands == ["undo.root#1"]
    story.compensations_succeed("root")
    assert story.status is Status.COMPENSATED


def test_rule_6_a_step_far_back_waits_for_all_that_depended_on_it_not_only_the_next():
    saga = Saga("chain", version=1, input=dict)
    first = add_step(saga, "a")
    second = add_step(saga, "look", after=[first], compensated=False, read_only=True)
    third = add_step(saga, "b", after=[second])
    add_step(saga, "c", after=[third])
    story = DeciderScenario(saga)
    for name in ("a", "look", "b"):
        story.succeeds(name)
    story.rejects("c")
    assert story.sent_commands == ["undo.b#1"]
    assert story.progress_of("a", COMPENSATION).attempts == 0


def test_a_blocked_branch_does_not_hold_up_the_other():
    story = DeciderScenario(branching_saga())
    story.succeeds("root")
    story.malformed_reply("left")
    story.succeeds("right")
    assert story.progress_of("right").status is StepStatus.SUCCEEDED
    story.resolves("complete")
    assert story.sent_commands == ["do.join#1"]


def test_a_failing_branch_closes_the_incident_of_the_other():
    story = DeciderScenario(branching_saga())
    story.succeeds("root")
    story.malformed_reply("left")
    story.rejects("right")
    assert story.run.incidents == {}
    assert story.progress_of("left").status is StepStatus.FAILED
    assert story.sent_commands == ["undo.left#1"]


def test_steps_declared_after_a_later_one_are_found():
    saga = Saga("forward", version=1, input=dict)
    add_step(saga, "b", after=["a"], retry=TWO_ATTEMPTS)
    add_step(saga, "a", after=[])
    story = DeciderScenario(saga)
    assert story.sent_commands == ["do.a#1"]
    story.succeeds("a")
    assert story.sent_commands == ["do.b#1"]
