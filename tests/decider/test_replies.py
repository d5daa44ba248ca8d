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


def test_rule_4_a_success_after_its_confirmed_compensation_is_late():
    scenario = DeciderScenario(sequential_saga("a"))
    scenario.attempts_exhausted("a")
    scenario.compensations_succeed("a")
    assert scenario.status is Status.COMPENSATED
    assert scenario.succeeds("a").ignored_reason == "late"


def test_rule_4_a_success_after_its_compensation_was_sent_is_late():
    scenario = DeciderScenario(sequential_saga("a"))
    scenario.attempts_exhausted("a")
    assert scenario.sent_commands == ["undo.a#1"]
    assert scenario.succeeds("a").ignored_reason == "late"


def test_rule_4_a_success_after_a_rejection_is_compensated():
    scenario = DeciderScenario(sequential_saga("a", "b"))
    scenario.succeeds("a")
    scenario.rejects("b")
    scenario.succeeds("b", {"x": 1})
    assert scenario.sent_commands == ["undo.b#1"]
    assert scenario.progress_of("b").reply == {"x": 1}
    (event, _) = scenario.last_decision.events
    assert isinstance(event, StepSucceeded)
    assert event.late


def test_rule_4_a_compensated_run_compensates_again():
    scenario = DeciderScenario(sequential_saga("a", "b"))
    scenario.succeeds("a")
    scenario.rejects("b")
    scenario.compensations_succeed("a")
    before = scenario.status
    assert before is Status.COMPENSATED
    scenario.succeeds("b")
    again = scenario.status
    assert again is Status.COMPENSATING
    assert scenario.run.finished_at is None
    assert scenario.run.compensation_cause is not None
    assert scenario.run.compensation_cause.code == "late_success"
    assert scenario.sent_commands == ["undo.b#1"]
    scenario.compensations_succeed("b")
    assert scenario.status is Status.COMPENSATED


def test_rule_4_the_same_late_success_twice_is_a_duplicate():
    scenario = DeciderScenario(sequential_saga("a"))
    scenario.rejects("a")
    scenario.succeeds("a")
    assert scenario.succeeds("a").ignored_reason == "duplicate"


def test_rule_4_a_late_success_while_stopping_is_compensated_too():
    scenario = DeciderScenario(branching_saga())
    scenario.succeeds("root")
    scenario.rejects("left")
    scenario.succeeds("left")
    assert scenario.sent_commands == []
    assert scenario.progress_of("left").status is StepStatus.SUCCEEDED
    scenario.succeeds("right")
    assert scenario.sent_commands == ["undo.right#1", "undo.left#1"]


def test_rule_4_the_compensation_gets_a_late_reply():
    saga = Saga("late", version=1, input=dict)
    first = add_step(saga, "first", after=[], compensated=False, reply=dict)

    @first.compensation(command="undo.first")
    def undo(first: dict | None) -> dict:
        return {"was": first}

    add_step(saga, "second", after=[])
    scenario = DeciderScenario(saga)
    scenario.rejects("first")
    scenario.succeeds("first", {"id": 3})
    scenario.succeeds("second")
    assert scenario.sends[-1].payload == {"was": {"id": 3}}


def test_rule_4_a_compensation_that_was_blocked_before_it_was_sent_gets_the_late_reply():
    """Its mapping fails without the reply; the operator's retry has it."""
    saga = Saga("one", version=1, input=dict)
    step = add_step(saga, "a", compensated=False, reply=dict)

    @step.compensation(command="undo.a")
    def undo(a: dict | None) -> dict:
        assert a is not None
        return {"receipt": a["receipt"]}

    scenario = DeciderScenario(saga)
    scenario.attempts_exhausted("a")
    assert scenario.incident.cause == "mapping_failed"
    assert scenario.succeeds("a", {"receipt": 7}).ignored_reason is None
    assert scenario.progress_of("a").reply == {"receipt": 7}
    scenario.resolves("retry")
    assert scenario.sent_commands == ["undo.a#1"]
    assert scenario.sends[-1].payload == {"receipt": 7}
    scenario.compensations_succeed("a")
    assert scenario.status is Status.COMPENSATED


def test_rule_4_a_late_invalid_reply_is_compensated_without_it():
    saga = Saga("late", version=1, input=dict)
    first = add_step(saga, "first", compensated=False, reply=dict)

    @first.compensation(command="undo.first")
    def undo(first: dict | None) -> dict:
        return {"was": first}

    scenario = DeciderScenario(saga)
    scenario.rejects("first")
    scenario.succeeds("first", "no dict")
    assert scenario.sends[-1].payload == {"was": None}


def test_rule_4_a_late_success_of_a_read_only_step_changes_nothing():
    saga = Saga("look", version=1, input=dict)
    add_step(saga, "look", compensated=False, read_only=True)
    scenario = DeciderScenario(saga)
    scenario.attempts_exhausted("look")
    assert scenario.status is Status.COMPENSATED
    assert scenario.succeeds("look").ignored_reason == "late"


def test_rule_4_a_late_success_of_a_final_pivot_needs_a_person():
    scenario = DeciderScenario(sequential_saga("a", "p", pivot="p"))
    scenario.succeeds("a")
    scenario.rejects("p")
    scenario.compensations_succeed("a")
    scenario.succeeds("p")
    assert isinstance(scenario.last_decision.events[1], RunCompensating)
    assert scenario.incident.cause == "not_compensatable"
    assert "may have taken effect" in scenario.incident.message
    assert scenario.resolves("retry").refusal is not None
    scenario.resolves("complete")
    assert scenario.status is Status.COMPENSATED


def test_rule_4_a_late_success_of_a_skipped_step_changes_nothing():
    scenario = DeciderScenario(sequential_saga("a", "b"))
    scenario.unroutable("a")
    scenario.timer_fires()
    scenario.unroutable("a")
    scenario.resolves("skip")
    assert scenario.sent_commands == ["do.b#1"]
    assert scenario.succeeds("a").ignored_reason == "late"


def test_an_unroutable_resend_may_have_an_effect():
    for never_delivered, undone in ((True, []), (False, ["undo.a#1"])):
        scenario = DeciderScenario(sequential_saga("a", "b"))
        scenario.unroutable("a", never_delivered=never_delivered)
        scenario.cancels()
        assert scenario.sent_commands == undone


def test_rule_4_a_step_waits_for_the_compensation_of_a_late_descendant():
    scenario = DeciderScenario(sequential_saga("a", "b"))
    scenario.succeeds("a")
    scenario.rejects("b")
    scenario.rejects("a", direction=COMPENSATION)
    scenario.succeeds("b")
    scenario.resolves("retry")
    assert scenario.sent_commands == []
    assert scenario.progress_of("a", COMPENSATION).status is StepStatus.PENDING
    scenario.compensations_succeed("b")
    assert scenario.sent_commands == ["undo.a#2"]
    scenario.compensations_succeed("a")
    assert scenario.status is Status.COMPENSATED


def test_a_success_of_a_blocked_step_closes_its_incident_and_the_run_goes_on():
    scenario = DeciderScenario(sequential_saga("a", "p", "z", pivot="p"))
    scenario.succeeds("a")
    scenario.attempts_exhausted("p")
    assert scenario.incident.direction is ACTION
    scenario.succeeds("p")
    assert scenario.run.incidents == {}
    assert scenario.sent_commands == ["do.z#1"]
