"""docs/semantics.md, 1: timeouts and other failed attempts."""

from datetime import timedelta

import pytest

from saga_engine.decider.events import AttemptFailed
from saga_engine.decider.run import StepStatus
from saga_engine.vocabulary import EngineFailureCode, Failure, Outcome, Status
from tests.kit.decider_scenario import NOON, TIMEOUT, DeciderScenario, sequential_saga


def test_rule_1_a_timeout_leaves_the_outcome_unknown():
    scenario = DeciderScenario(sequential_saga("a"))
    scenario.timer_fires()
    (event,) = scenario.last_decision.events
    assert isinstance(event, AttemptFailed)
    assert event.outcome is Outcome.UNKNOWN
    assert event.failure.text == "timeout: No reply within 30 s."


def test_rule_1_a_timeout_is_retried_with_the_same_key_and_bytes():
    scenario = DeciderScenario(sequential_saga("a"))
    scenario.timer_fires()
    assert scenario.progress_of("a").due_at == NOON + TIMEOUT + timedelta(seconds=1)
    scenario.timer_fires()
    first, second = scenario.sends
    assert (first.attempt, second.attempt) == (1, 2)
    assert first.idempotency_key == second.idempotency_key
    assert first.payload == second.payload


def test_rule_1_a_step_without_attempts_left_is_compensated():
    scenario = DeciderScenario(sequential_saga("a", "b"))
    scenario.succeeds("a")
    scenario.attempts_exhausted("b")
    assert scenario.progress_of("b").status is StepStatus.UNKNOWN
    before = scenario.status
    assert before is Status.COMPENSATING
    assert scenario.run.compensation_cause is not None
    assert (scenario.run.compensation_cause.code, scenario.run.compensation_cause.step) == (
        "unknown",
        "b",
    )
    assert scenario.sent_commands == ["undo.b#1"]
    scenario.compensations_succeed("b", "a")
    assert scenario.status is Status.COMPENSATED


def test_a_failure_without_attempts_left_is_compensated_too():
    scenario = DeciderScenario(sequential_saga("a"))
    scenario.fails("a")
    scenario.timer_fires()
    scenario.fails("a")
    assert scenario.progress_of("a").status is StepStatus.FAILED
    assert scenario.sent_commands == ["undo.a#1"]


@pytest.mark.parametrize("code", EngineFailureCode)
def test_the_code_of_a_participants_failure_decides_nothing(code):
    scenario = DeciderScenario(sequential_saga("a"))
    scenario.fails("a", Failure(code.value))
    scenario.timer_fires()
    scenario.fails("a", Failure(code.value))
    assert scenario.progress_of("a").status is StepStatus.FAILED
    assert scenario.sent_commands == ["undo.a#1"]


def test_a_step_given_up_after_a_failure_called_timeout_has_failed():
    scenario = DeciderScenario(sequential_saga("a"))
    scenario.fails("a", Failure("timeout"))
    scenario.cancels()
    assert scenario.progress_of("a").status is StepStatus.FAILED


def test_a_rejected_step_is_neither_retried_nor_compensated():
    scenario = DeciderScenario(sequential_saga("a", "b"))
    scenario.succeeds("a")
    scenario.rejects("b", "out_of_stock")
    assert scenario.sent_commands == ["undo.a#1"]
    scenario.compensations_succeed("a")
    assert scenario.status is Status.COMPENSATED
    assert "undo.b" not in {send.name for send in scenario.sends}


def test_a_timeout_exactly_when_it_is_due_counts():
    scenario = DeciderScenario(sequential_saga("a"))
    assert scenario.timer_fires(TIMEOUT - timedelta(microseconds=1)).events == ()
    assert len(scenario.timer_fires(timedelta(microseconds=1)).events) == 1


def test_an_unroutable_command_is_retried_then_opens_an_incident():
    scenario = DeciderScenario(sequential_saga("a"))
    scenario.unroutable("a")
    assert scenario.progress_of("a").status is StepStatus.AWAITING_RETRY
    scenario.timer_fires()
    assert scenario.sent_commands == ["do.a#2"]
    scenario.unroutable("a")
    assert scenario.incident.cause == "unroutable"
    assert "do.a" in scenario.incident.message
    assert scenario.status is Status.RUNNING


def test_an_unroutable_command_is_not_compensated():
    scenario = DeciderScenario(sequential_saga("a"))
    scenario.unroutable("a")
    scenario.cancels()
    assert scenario.sent_commands == []
    assert scenario.status is Status.COMPENSATED


def test_one_attempt_that_may_have_arrived_is_compensated():
    scenario = DeciderScenario(sequential_saga("a"))
    scenario.timer_fires()
    scenario.timer_fires()
    scenario.unroutable("a")
    scenario.cancels()
    assert scenario.sent_commands == ["undo.a#1"]


def test_an_unroutable_command_of_a_settled_attempt_is_late():
    scenario = DeciderScenario(sequential_saga("a", "b"))
    scenario.succeeds("a")
    assert scenario.unroutable("a").ignored_reason == "late"
    scenario.timer_fires()
    assert scenario.unroutable("b").ignored_reason == "late"


def test_a_long_message_is_truncated():
    scenario = DeciderScenario(sequential_saga("a", pivot="a"))
    scenario.attempts_exhausted("a")
    assert len(scenario.incident.message) < 500


@pytest.mark.parametrize(
    "code", [EngineFailureCode.UNROUTABLE, EngineFailureCode.DECRYPTION_FAILED]
)
def test_a_rejection_compensates_also_with_a_failure_code_of_the_engine(code):
    scenario = DeciderScenario(sequential_saga("a", "b"))
    scenario.succeeds("a")
    scenario.apply(
        scenario._reply("b", Outcome.REJECTED, failure=Failure.by_engine(code, "No queue."))
    )
    assert scenario.status is Status.COMPENSATING
    assert not scenario.run.incidents
