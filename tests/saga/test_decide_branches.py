"""docs/semantics.md, 6: parallel parts."""

from datetime import timedelta

from saga_engine import Retry, Saga
from saga_engine.decider.run import StepStatus
from saga_engine.vocabulary import Status
from tests.saga.scenario import COMPENSATION, TWICE, Story, add, fork


def test_branches_start_side_by_side_and_join():
    story = Story(fork())
    story.succeeds("root")
    assert story.sent == ["do.left#1", "do.right#1"]
    story.succeeds("right")
    assert story.sent == []
    story.succeeds("left")
    assert story.sent == ["do.join#1"]
    story.succeeds("join")
    assert story.status is Status.COMPLETED


def test_rule_6_siblings_in_flight_settle_before_anything_is_compensated():
    story = Story(fork())
    story.succeeds("root")
    story.rejects("left")
    assert story.sent == []
    assert story.run.stop is not None
    before = story.status
    assert before is Status.RUNNING
    story.succeeds("right")
    assert story.status is Status.COMPENSATING
    assert story.run.cause is not None
    assert (story.run.cause.code, story.run.cause.step) == ("rejected", "left")


def test_rule_6_nothing_new_starts():
    saga = Saga("long-branch", version=1, input=dict)
    add(saga, "x", after=[])
    first = add(saga, "y1", after=[])
    add(saga, "y2", after=[first])
    story = Story(saga)
    story.rejects("x")
    story.succeeds("y1")
    assert story.at("y2").attempts == 0
    assert story.sent == ["undo.y1#1"]


def test_rule_6_a_sibling_that_waits_for_its_retry_is_not_tried_again():
    story = Story(fork())
    story.succeeds("root")
    story.fails("right")
    story.rejects("left")
    assert story.at("right").status is StepStatus.FAILED
    assert story.sent == ["undo.right#1"]


def test_rule_6_a_sibling_is_not_retried_by_the_wake_up_that_gives_the_step_up():
    saga = Saga("beside", version=1, input=dict)
    patient = Retry(attempts=5, initial=timedelta(seconds=30), jitter=0)
    add(saga, "x", after=[], retry=patient, timeout=timedelta(seconds=1))
    add(saga, "y", after=[], retry=Retry(attempts=1))
    story = Story(saga)
    story.fails("x")
    story.wakes(timedelta(seconds=30))
    assert story.at("x").attempts == 1
    assert story.sent == ["undo.y#1", "undo.x#1"]


def test_rule_6_a_sibling_that_times_out_while_stopping_is_compensated():
    story = Story(fork())
    story.succeeds("root")
    story.rejects("left")
    story.wakes()
    assert story.at("right").status is StepStatus.UNKNOWN
    assert story.sent == ["undo.right#1"]


def test_rule_6_the_first_failure_is_the_cause_though_a_sibling_fails_too():
    story = Story(fork())
    story.succeeds("root")
    story.rejects("left", "first")
    story.rejects("right", "second")
    assert story.run.cause is not None
    assert story.run.cause.failure is not None
    assert story.run.cause.failure.code == "first"


def test_rule_6_compensation_goes_in_reverse_dependency_order_branches_side_by_side():
    saga = fork()
    add(saga, "last")
    story = Story(saga)
    for name in ("root", "left", "right", "join"):
        story.succeeds(name)
    story.rejects("last")
    assert story.sent == ["undo.join#1"]
    story.undone("join")
    assert story.sent == ["undo.right#1", "undo.left#1"]
    story.undone("left")
    assert story.sent == []
    story.undone("right")
    assert story.sent == ["undo.root#1"]
    story.undone("root")
    assert story.status is Status.COMPENSATED


def test_rule_6_a_step_far_back_waits_for_all_that_depended_on_it_not_only_the_next():
    saga = Saga("chain", version=1, input=dict)
    first = add(saga, "a")
    second = add(saga, "look", after=[first], undo=False, read_only=True)
    third = add(saga, "b", after=[second])
    add(saga, "c", after=[third])
    story = Story(saga)
    for name in ("a", "look", "b"):
        story.succeeds(name)
    story.rejects("c")
    assert story.sent == ["undo.b#1"]
    assert story.at("a", COMPENSATION).attempts == 0


def test_a_blocked_branch_does_not_hold_up_the_other():
    story = Story(fork())
    story.succeeds("root")
    story.garbles("left")
    story.succeeds("right")
    assert story.at("right").status is StepStatus.SUCCEEDED
    story.resolves("complete")
    assert story.sent == ["do.join#1"]


def test_a_failing_branch_closes_the_incident_of_the_other():
    story = Story(fork())
    story.succeeds("root")
    story.garbles("left")
    story.rejects("right")
    assert story.run.incidents == {}
    assert story.at("left").status is StepStatus.FAILED
    assert story.sent == ["undo.left#1"]


def test_steps_declared_after_a_later_one_are_found():
    saga = Saga("forward", version=1, input=dict)
    add(saga, "b", after=["a"], retry=TWICE)
    add(saga, "a", after=[])
    story = Story(saga)
    assert story.sent == ["do.a#1"]
    story.succeeds("a")
    assert story.sent == ["do.b#1"]
