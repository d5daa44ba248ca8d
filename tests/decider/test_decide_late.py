"""docs/semantics.md, 4: a success that arrives after its step was given up."""

from saga_engine import Saga
from saga_engine.decider.events import RunCompensating, StepSucceeded
from saga_engine.decider.run import StepStatus
from saga_engine.vocabulary import Status
from tests.kit.decider_scenario import (
    ACTION,
    COMPENSATION,
    DeciderScenario,
    add_step,
    branching_saga,
    sequential_saga,
)


def test_rule_4_after_its_compensation_was_confirmed_the_barrier_has_refused_it():
    story = DeciderScenario(sequential_saga("a"))
    story.attempts_exhausted("a")
    story.compensations_succeed("a")
    assert story.status is Status.COMPENSATED
    assert story.succeeds("a").ignored_reason == "late"


def test_rule_4_after_its_compensation_was_sent_that_covers_it():
    story = DeciderScenario(sequential_saga("a"))
    story.attempts_exhausted("a")
    assert story.sent_commands == ["undo.a#1"]
    assert story.succeeds("a").ignored_reason == "late"


def test_rule_4_after_a_rejection_the_core_orders_a_compensation():
    story = DeciderScenario(sequential_saga("a", "b"))
    story.succeeds("a")
    story.rejects("b")
    story.succeeds("b", {"x": 1})
    assert story.sent_commands == ["undo.b#1"]
    assert story.progress_of("b").reply == {"x": 1}
    (event, _) = story.last_decision.events
    assert isinstance(event, StepSucceeded)
    assert event.late


def test_rule_4_after_the_run_was_compensated_it_compensates_again():
    story = DeciderScenario(sequential_saga("a", "b"))
    story.succeeds("a")
    story.rejects("b")
    story.compensations_succeed("a")
    before = story.status
    assert before is Status.COMPENSATED
    story.succeeds("b")
    again = story.status
    assert again is Status.COMPENSATING
    assert story.run.finished_at is None
    assert story.run.compensation_cause is not None
    assert story.run.compensation_cause.code == "late_success"
    assert story.sent_commands == ["undo.b#1"]
    story.compensations_succeed("b")
    assert story.status is Status.COMPENSATED


def test_rule_4_the_same_late_success_twice_is_a_duplicate():
    story = DeciderScenario(sequential_saga("a"))
    story.rejects("a")
    story.succeeds("a")
    assert story.succeeds("a").ignored_reason == "duplicate"


def test_rule_4_while_siblings_settle_it_is_recorded_and_compensated_with_the_rest():
    story = DeciderScenario(branching_saga())
    story.succeeds("root")
    story.rejects("left")
    story.succeeds("left")
    assert story.sent_commands == []
    assert story.progress_of("left").status is StepStatus.SUCCEEDED
    story.succeeds("right")
    assert story.sent_commands == ["undo.right#1", "undo.left#1"]


def test_rule_4_before_its_compensation_was_sent_its_reply_is_there_for_it():
    saga = Saga("late", version=1, input=dict)
    first = add_step(saga, "first", after=[], compensated=False, reply=dict)

    @first.compensation(command="undo.first")
    def undo(first: dict | None) -> dict:
        return {"was": first}

    add_step(saga, "second", after=[])
    story = DeciderScenario(saga)
    story.rejects("first")
    story.succeeds("first", {"id": 3})
    story.succeeds("second")
    assert story.sends[-1].payload == {"was": {"id": 3}}


def test_rule_4_a_late_success_whose_reply_does_not_fit_is_undone_without_it():
    saga = Saga("late", version=1, input=dict)
    first = add_step(saga, "first", compensated=False, reply=dict)

    @first.compensation(command="undo.first")
    def undo(first: dict | None) -> dict:
        return {"was": first}

    story = DeciderScenario(saga)
    story.rejects("first")
    story.succeeds("first", "no dict")
    assert story.sends[-1].payload == {"was": None}


def test_rule_4_of_a_read_only_step_it_changes_nothing():
    saga = Saga("look", version=1, input=dict)
    add_step(saga, "look", compensated=False, read_only=True)
    story = DeciderScenario(saga)
    story.attempts_exhausted("look")
    assert story.status is Status.COMPENSATED
    assert story.succeeds("look").ignored_reason == "late"


def test_rule_4_of_a_pivot_without_compensation_it_needs_a_person():
    story = DeciderScenario(sequential_saga("a", "p", pivot="p"))
    story.succeeds("a")
    story.rejects("p")
    story.compensations_succeed("a")
    story.succeeds("p")
    assert isinstance(story.last_decision.events[1], RunCompensating)
    assert story.incident.cause == "not_compensatable"
    assert "may have taken effect" in story.incident.message
    assert story.resolves("retry").refusal is not None
    story.resolves("complete")
    assert story.status is Status.COMPENSATED


def test_rule_4_of_a_step_an_operator_skipped_it_changes_nothing():
    story = DeciderScenario(sequential_saga("a", "b"))
    story.unroutable("a")
    story.timer_fires()
    story.unroutable("a")
    story.resolves("skip")
    assert story.sent_commands == ["do.b#1"]
    assert story.succeeds("a").ignored_reason == "late"


def test_a_command_that_was_sent_again_and_came_back_may_have_been_done():
    for first, undone in ((True, []), (False, ["undo.a#1"])):
        story = DeciderScenario(sequential_saga("a", "b"))
        story.unroutable("a", first=first)
        story.cancels()
        assert story.sent_commands == undone


def test_rule_4_an_undone_step_waits_until_a_late_one_that_depended_on_it_is_undone():
    story = DeciderScenario(sequential_saga("a", "b"))
    story.succeeds("a")
    story.rejects("b")
    story.rejects("a", direction=COMPENSATION)
    story.succeeds("b")
    story.resolves("retry")
    assert story.sent_commands == []
    assert story.progress_of("a", COMPENSATION).status is StepStatus.PENDING
    story.compensations_succeed("b")
    assert story.sent_commands == ["undo.a#2"]
    story.compensations_succeed("a")
    assert story.status is Status.COMPENSATED


def test_a_success_of_a_blocked_step_closes_its_incident_and_the_run_goes_on():
    story = DeciderScenario(sequential_saga("a", "p", "z", pivot="p"))
    story.succeeds("a")
    story.attempts_exhausted("p")
    assert story.incident.direction is ACTION
    story.succeeds("p")
    assert story.run.incidents == {}
    assert story.sent_commands == ["do.z#1"]
