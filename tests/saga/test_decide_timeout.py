"""docs/semantics.md, 1, and what else makes an attempt come to nothing."""

from datetime import timedelta

from saga_engine.decider.events import AttemptFailed
from saga_engine.decider.run import StepStatus
from saga_engine.vocabulary import Outcome, Status
from tests.saga.scenario import NOON, TIMEOUT, Story, sequence


def test_rule_1_a_timeout_leaves_the_outcome_unknown():
    story = Story(sequence("a"))
    story.wakes()
    (event,) = story.last.events
    assert isinstance(event, AttemptFailed)
    assert event.outcome is Outcome.UNKNOWN
    assert event.failure.text == "timeout: No reply within 30 s."


def test_rule_1_a_timeout_is_retried_with_the_same_idempotency_key_and_the_same_bytes():
    story = Story(sequence("a"))
    story.wakes()
    assert story.at("a").due_at == NOON + TIMEOUT + timedelta(seconds=1)
    story.wakes()
    first, second = story.sends
    assert (first.attempt, second.attempt) == (1, 2)
    assert first.idempotency_key == second.idempotency_key
    assert first.payload == second.payload


def test_rule_1_without_attempts_left_it_counts_as_maybe_done_and_is_compensated():
    story = Story(sequence("a", "b"))
    story.succeeds("a")
    story.exhausts("b")
    assert story.at("b").status is StepStatus.UNKNOWN
    before = story.status
    assert before is Status.COMPENSATING
    assert story.run.cause is not None
    assert (story.run.cause.code, story.run.cause.step) == ("unknown", "b")
    assert story.sent == ["undo.b#1"]
    story.undone("b", "a")
    assert story.status is Status.COMPENSATED


def test_a_failure_without_attempts_left_is_compensated_too():
    story = Story(sequence("a"))
    story.fails("a")
    story.wakes()
    story.fails("a")
    assert story.at("a").status is StepStatus.FAILED
    assert story.sent == ["undo.a#1"]


def test_a_rejection_was_not_done_and_is_neither_retried_nor_compensated():
    story = Story(sequence("a", "b"))
    story.succeeds("a")
    story.rejects("b", "out_of_stock")
    assert story.sent == ["undo.a#1"]
    story.undone("a")
    assert story.status is Status.COMPENSATED
    assert "undo.b" not in {send.command for send in story.sends}


def test_a_timeout_exactly_when_it_is_due_counts():
    story = Story(sequence("a"))
    assert story.wakes(TIMEOUT - timedelta(microseconds=1)).events == ()
    assert len(story.wakes(timedelta(microseconds=1)).events) == 1


def test_an_unroutable_command_is_retried_then_a_person_must_look():
    story = Story(sequence("a"))
    story.returns("a")
    assert story.at("a").status is StepStatus.WAITING
    story.wakes()
    assert story.sent == ["do.a#2"]
    story.returns("a")
    assert story.incident.cause == "unroutable"
    assert "do.a" in story.incident.message
    assert story.status is Status.RUNNING


def test_an_unroutable_command_did_nothing_so_it_is_not_compensated():
    story = Story(sequence("a"))
    story.returns("a")
    story.cancels()
    assert story.sent == []
    assert story.status is Status.COMPENSATED


def test_one_attempt_that_may_have_arrived_is_enough_to_be_compensated():
    story = Story(sequence("a"))
    story.wakes()
    story.wakes()
    story.returns("a")
    story.cancels()
    assert story.sent == ["undo.a#1"]


def test_a_return_of_an_attempt_that_was_settled_is_late():
    story = Story(sequence("a", "b"))
    story.succeeds("a")
    assert story.returns("a").ignored == "late"
    story.wakes()
    assert story.returns("b").ignored == "late"


def test_the_journal_keeps_the_start_of_a_long_message_and_what_jsonb_takes():
    story = Story(sequence("a", pivot="a"))
    story.exhausts("a")
    assert len(story.incident.message) < 500
