"""docs/semantics.md, 1, and what else makes an attempt come to nothing."""

from datetime import timedelta

from saga_engine.decider.events import AttemptFailed
from saga_engine.decider.run import StepStatus
from saga_engine.vocabulary import Outcome, Status
from tests.kit.decider_scenario import NOON, TIMEOUT, DeciderScenario, sequential_saga


def test_rule_1_a_timeout_leaves_the_outcome_unknown():
    story = DeciderScenario(sequential_saga("a"))
    story.timer_fires()
    (event,) = story.last_decision.events
    assert isinstance(event, AttemptFailed)
    assert event.outcome is Outcome.UNKNOWN
    assert event.failure.text == "timeout: No reply within 30 s."


def test_rule_1_a_timeout_is_retried_with_the_same_idempotency_key_and_the_same_bytes():
    story = DeciderScenario(sequential_saga("a"))
    story.timer_fires()
    assert story.progress_of("a").due_at == NOON + TIMEOUT + timedelta(seconds=1)
    story.timer_fires()
    first, second = story.sends
    assert (first.attempt, second.attempt) == (1, 2)
    assert first.idempotency_key == second.idempotency_key
    assert first.payload == second.payload


def test_rule_1_without_attempts_left_it_counts_as_maybe_done_and_is_compensated():
    story = DeciderScenario(sequential_saga("a", "b"))
    story.succeeds("a")
    story.attempts_exhausted("b")
    assert story.progress_of("b").status is StepStatus.UNKNOWN
    before = story.status
    assert before is Status.COMPENSATING
    assert story.run.compensation_cause is not None
    assert (story.run.compensation_cause.code, story.run.compensation_cause.step) == (
        "unknown",
        "b",
    )
    assert story.sent_commands == ["undo.b#1"]
    story.compensations_succeed("b", "a")
    assert story.status is Status.COMPENSATED


def test_a_failure_without_attempts_left_is_compensated_too():
    story = DeciderScenario(sequential_saga("a"))
    story.fails("a")
    story.timer_fires()
    story.fails("a")
    assert story.progress_of("a").status is StepStatus.FAILED
    assert story.sent_commands == ["undo.a#1"]


def test_a_rejection_was_not_done_and_is_neither_retried_nor_compensated():
    story = DeciderScenario(sequential_saga("a", "b"))
    story.succeeds("a")
    story.rejects("b", "out_of_stock")
    assert story.sent_commands == ["undo.a#1"]
    story.compensations_succeed("a")
    assert story.status is Status.COMPENSATED
    assert "undo.b" not in {send.command for send in story.sends}


def test_a_timeout_exactly_when_it_is_due_counts():
    story = DeciderScenario(sequential_saga("a"))
    assert story.timer_fires(TIMEOUT - timedelta(microseconds=1)).events == ()
    assert len(story.timer_fires(timedelta(microseconds=1)).events) == 1


def test_an_unroutable_command_is_retried_then_a_person_must_look():
    story = DeciderScenario(sequential_saga("a"))
    story.unroutable("a")
    assert story.progress_of("a").status is StepStatus.AWAITING_RETRY
    story.timer_fires()
    assert story.sent_commands == ["do.a#2"]
    story.unroutable("a")
    assert story.incident.cause == "unroutable"
    assert "do.a" in story.incident.message
    assert story.status is Status.RUNNING


def test_an_unroutable_command_did_nothing_so_it_is_not_compensated():
    story = DeciderScenario(sequential_saga("a"))
    story.unroutable("a")
    story.cancels()
    assert story.sent_commands == []
    assert story.status is Status.COMPENSATED


def test_one_attempt_that_may_have_arrived_is_enough_to_be_compensated():
    story = DeciderScenario(sequential_saga("a"))
    story.timer_fires()
    story.timer_fires()
    story.unroutable("a")
    story.cancels()
    assert story.sent_commands == ["undo.a#1"]


def test_a_return_of_an_attempt_that_was_settled_is_late():
    story = DeciderScenario(sequential_saga("a", "b"))
    story.succeeds("a")
    assert story.unroutable("a").ignored_reason == "late"
    story.timer_fires()
    assert story.unroutable("b").ignored_reason == "late"


def test_the_journal_keeps_the_start_of_a_long_message_and_what_jsonb_takes():
    story = DeciderScenario(sequential_saga("a", pivot="a"))
    story.attempts_exhausted("a")
    assert len(story.incident.message) < 500
