"""docs/semantics.md, 5: cancel and deadline."""

from datetime import timedelta

import pytest

from saga_engine.decider.events import RunStopping, StopSuperseded
from saga_engine.decider.run import StepStatus
from saga_engine.vocabulary import Direction, Status
from tests.kit.decider_scenario import TIMEOUT, DeciderScenario, branching_saga, sequential_saga


def by_cancel(scenario: DeciderScenario) -> None:
    scenario.cancels()


def by_deadline(scenario: DeciderScenario) -> None:
    assert scenario.run.deadline is not None
    scenario.timer_fires(scenario.run.deadline - scenario.now)


@pytest.fixture(params=[by_cancel, by_deadline])
def stop(request):
    return request.param


def story_of(*names: str, pivot: str | None = None) -> DeciderScenario:
    """A run whose deadline comes before its first timeout."""
    return DeciderScenario(sequential_saga(*names, pivot=pivot, deadline=timedelta(seconds=10)))


def test_rule_5_the_outcome_of_the_step_in_flight_is_awaited(stop):
    scenario = story_of("a", "b", "c")
    scenario.succeeds("a")
    stop(scenario)
    assert isinstance(scenario.last_decision.events[-1], RunStopping)
    assert scenario.sent_commands == []
    before = scenario.status
    assert before is Status.RUNNING
    scenario.succeeds("b")
    assert scenario.sent_commands == ["undo.b#1"]
    assert scenario.status is Status.COMPENSATING


def test_rule_5_the_outcome_is_awaited_until_its_timeout_and_not_retried(stop):
    scenario = story_of("a", "b")
    scenario.succeeds("a")
    stop(scenario)
    scenario.timer_fires()
    assert scenario.progress_of("b").status is StepStatus.UNKNOWN
    assert scenario.sent_commands == ["undo.b#1"]


def test_rule_5_a_failure_while_stopping_is_not_retried(stop):
    scenario = story_of("a")
    stop(scenario)
    scenario.fails("a")
    assert scenario.progress_of("a").status is StepStatus.FAILED
    assert scenario.sent_commands == ["undo.a#1"]


def test_rule_5_a_rejection_while_stopping_needs_no_compensation(stop):
    scenario = story_of("a")
    stop(scenario)
    scenario.rejects("a")
    assert scenario.status is Status.COMPENSATED


def test_rule_5_an_unroutable_command_while_stopping_needs_no_compensation(stop):
    scenario = story_of("a")
    stop(scenario)
    scenario.unroutable("a")
    assert scenario.status is Status.COMPENSATED


def test_rule_5_a_malformed_reply_while_stopping_may_have_an_effect(stop):
    scenario = story_of("a")
    stop(scenario)
    scenario.malformed_reply("a")
    assert scenario.progress_of("a").status is StepStatus.UNKNOWN
    assert scenario.sent_commands == ["undo.a#1"]


def test_rule_5_an_invalid_reply_while_stopping_still_proves_the_effect(stop):
    saga = sequential_saga("a", deadline=timedelta(seconds=10))
    saga.steps["a"].action_spec = type(saga.steps["a"].action_spec)(
        **{
            **{
                n: getattr(saga.steps["a"].action_spec, n)
                for n in saga.steps["a"].action_spec.__slots__
            },
            "reply_type": saga.input_type,
        }
    )
    scenario = DeciderScenario(saga)
    stop(scenario)
    scenario.succeeds("a", "no dict")
    assert scenario.progress_of("a").status is StepStatus.SUCCEEDED
    assert scenario.sent_commands == ["undo.a#1"]


def test_rule_5_a_step_awaiting_its_retry_is_given_up(stop):
    scenario = story_of("a", "b")
    scenario.succeeds("a")
    scenario.fails("b")
    stop(scenario)
    assert scenario.progress_of("b").status is StepStatus.FAILED
    assert scenario.sent_commands == ["undo.b#1"]


def test_rule_5_a_step_given_up_after_a_timeout_is_unknown():
    scenario = DeciderScenario(sequential_saga("a"))
    scenario.timer_fires()
    scenario.cancels()
    assert scenario.progress_of("a").status is StepStatus.UNKNOWN


def test_rule_5_cancel_closes_the_incident_of_a_blocked_step():
    scenario = DeciderScenario(sequential_saga("a", "b"))
    scenario.succeeds("a")
    scenario.malformed_reply("b")
    assert scenario.incident.cause == "reply_unreadable"
    scenario.cancels()
    assert scenario.run.incidents == {}
    assert scenario.sent_commands == ["undo.b#1"]


def test_rule_5_an_open_incident_suspends_the_deadline():
    scenario = story_of("a")
    scenario.malformed_reply("a")
    scenario.timer_fires(timedelta(hours=1))
    before = scenario.last_decision.events
    assert before == ()
    scenario.resolves("retry")
    scenario.timer_fires(timedelta())
    assert isinstance(scenario.last_decision.events[-1], RunStopping)


def test_rule_5_the_cause_is_kept(stop):
    scenario = story_of("a", "b")
    scenario.succeeds("a")
    stop(scenario)
    stopped_by = scenario.run.stop_cause
    scenario.rejects("b")
    assert scenario.run.compensation_cause == stopped_by
    assert scenario.run.stop_cause is None
    assert stopped_by is not None
    if stop is by_cancel:
        assert (stopped_by.code, stopped_by.operator) == ("cancelled", "ann")
        assert stopped_by.reason == "changed my mind"
    else:
        assert stopped_by.code == "deadline"


def test_rule_5_cancelling_twice_changes_nothing(stop):
    scenario = story_of("a", "b")
    scenario.succeeds("a")
    stop(scenario)
    assert scenario.cancels().ignored_reason == "already_stopping"
    scenario.succeeds("b")
    assert scenario.cancels().ignored_reason == "already_stopping"
    scenario.compensations_succeed("b", "a")
    assert scenario.cancels().ignored_reason == "already_stopping"


def test_rule_5_a_run_whose_pivot_is_rejected_compensates(stop):
    scenario = story_of("a", "p", "z", pivot="p")
    scenario.succeeds("a")
    stop(scenario)
    scenario.rejects("p")
    assert scenario.sent_commands == ["undo.a#1"]


def test_rule_5_a_pivot_in_flight_that_succeeds_supersedes_the_stop(stop):
    scenario = story_of("a", "p", "z", pivot="p")
    scenario.succeeds("a")
    stop(scenario)
    scenario.succeeds("p")
    assert isinstance(scenario.last_decision.events[1], StopSuperseded)
    assert scenario.run.stop_cause is None
    assert scenario.sent_commands == ["do.z#1"]
    scenario.succeeds("z")
    assert scenario.status is Status.COMPLETED


def test_rule_5_a_timeout_of_a_pivot_without_compensation_needs_a_person(stop):
    scenario = story_of("a", "p", pivot="p")
    scenario.succeeds("a")
    stop(scenario)
    scenario.timer_fires()
    assert scenario.incident.cause == "not_compensatable"
    assert scenario.sent_commands == []
    scenario.resolves("skip")
    assert scenario.sent_commands == ["undo.a#1"]


def test_rule_5_after_the_pivot_cancel_is_refused_with_a_reason():
    scenario = story_of("p", "z", pivot="p")
    scenario.succeeds("p")
    assert scenario.cancels().refusal == (
        "Step p, the pivot, has succeeded: the run can only go forward."
    )


def test_cancel_of_a_completed_or_abandoned_run_is_refused_with_a_reason():
    completed = story_of("a")
    completed.succeeds("a")
    assert completed.cancels().refusal == "The run is completed already."
    abandoned = story_of("a")
    abandoned.malformed_reply("a")
    abandoned.resolves("abandon")
    assert abandoned.cancels().refusal == "The run is abandoned already."


def test_rule_5_deadline_and_timeout_at_the_same_time_compensate_at_once():
    scenario = DeciderScenario(sequential_saga("a", deadline=TIMEOUT))
    scenario.timer_fires(TIMEOUT)
    assert scenario.status is Status.COMPENSATING
    assert scenario.run.compensation_cause is not None
    assert scenario.run.compensation_cause.code == "deadline"
    assert scenario.sent_commands == ["undo.a#1"]


def test_rule_5_cancel_awaits_every_branch():
    scenario = DeciderScenario(branching_saga())
    scenario.succeeds("root")
    scenario.cancels()
    scenario.succeeds("left")
    assert scenario.status is Status.RUNNING
    scenario.rejects("right")
    assert scenario.sent_commands == ["undo.left#1"]


def test_without_a_deadline_time_alone_compensates_nothing():
    scenario = DeciderScenario(sequential_saga("a"))
    scenario.succeeds("a")
    assert scenario.run.deadline is None
    assert {send.direction for send in scenario.sends} == {Direction.ACTION}
