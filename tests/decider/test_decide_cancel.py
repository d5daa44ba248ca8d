"""docs/semantics.md, 5: cancel and deadline."""

from datetime import timedelta

import pytest

from saga_engine.decider.events import RunStopping, StopSuperseded
from saga_engine.decider.run import StepStatus
from saga_engine.vocabulary import Direction, Status
from tests.kit.decider_scenario import TIMEOUT, DeciderScenario, branching_saga, sequential_saga


def by_cancel(story: DeciderScenario) -> None:
    story.cancels()


def by_deadline(story: DeciderScenario) -> None:
    assert story.run.deadline is not None
    story.timer_fires(story.run.deadline - story.now)


@pytest.fixture(params=[by_cancel, by_deadline])
def stop(request):
    return request.param


def story_of(*names: str, pivot: str | None = None) -> DeciderScenario:
    """A run whose deadline comes before its first timeout."""
    return DeciderScenario(sequential_saga(*names, pivot=pivot, deadline=timedelta(seconds=10)))


def test_rule_5_the_outcome_of_the_step_in_flight_is_awaited(stop):
    story = story_of("a", "b", "c")
    story.succeeds("a")
    stop(story)
    assert isinstance(story.last_decision.events[-1], RunStopping)
    assert story.sent_commands == []
    before = story.status
    assert before is Status.RUNNING
    story.succeeds("b")
    assert story.sent_commands == ["undo.b#1"]
    assert story.status is Status.COMPENSATING


def test_rule_5_the_outcome_is_awaited_until_its_timeout_and_not_retried(stop):
    story = story_of("a", "b")
    story.succeeds("a")
    stop(story)
    story.timer_fires()
    assert story.progress_of("b").status is StepStatus.UNKNOWN
    assert story.sent_commands == ["undo.b#1"]


def test_rule_5_a_failure_while_stopping_is_not_retried(stop):
    story = story_of("a")
    stop(story)
    story.fails("a")
    assert story.progress_of("a").status is StepStatus.FAILED
    assert story.sent_commands == ["undo.a#1"]


def test_rule_5_a_rejection_while_stopping_leaves_nothing_to_undo(stop):
    story = story_of("a")
    stop(story)
    story.rejects("a")
    assert story.status is Status.COMPENSATED


def test_rule_5_an_unroutable_command_while_stopping_leaves_nothing_to_undo(stop):
    story = story_of("a")
    stop(story)
    story.unroutable("a")
    assert story.status is Status.COMPENSATED


def test_rule_5_a_garbled_reply_while_stopping_counts_as_maybe_done(stop):
    story = story_of("a")
    stop(story)
    story.malformed_reply("a")
    assert story.progress_of("a").status is StepStatus.UNKNOWN
    assert story.sent_commands == ["undo.a#1"]


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
    story = DeciderScenario(saga)
    stop(story)
    story.succeeds("a", "no dict")
    assert story.progress_of("a").status is StepStatus.SUCCEEDED
    assert story.sent_commands == ["undo.a#1"]


def test_rule_5_a_step_that_waits_for_its_retry_is_given_up(stop):
    story = story_of("a", "b")
    story.succeeds("a")
    story.fails("b")
    stop(story)
    assert story.progress_of("b").status is StepStatus.FAILED
    assert story.sent_commands == ["undo.b#1"]


def test_rule_5_a_step_that_waits_after_a_timeout_is_given_up_as_unknown():
    story = DeciderScenario(sequential_saga("a"))
    story.timer_fires()
    story.cancels()
    assert story.progress_of("a").status is StepStatus.UNKNOWN


def test_rule_5_cancel_closes_the_incident_of_a_blocked_step():
    story = DeciderScenario(sequential_saga("a", "b"))
    story.succeeds("a")
    story.malformed_reply("b")
    assert story.incident.cause == "reply_unreadable"
    story.cancels()
    assert story.run.incidents == {}
    assert story.sent_commands == ["undo.b#1"]


def test_rule_5_the_deadline_leaves_a_run_to_the_person_at_its_incident():
    story = story_of("a")
    story.malformed_reply("a")
    story.timer_fires(timedelta(hours=1))
    before = story.last_decision.events
    assert before == ()
    story.resolves("retry")
    story.timer_fires(timedelta())
    assert isinstance(story.last_decision.events[-1], RunStopping)


def test_rule_5_the_cause_is_kept(stop):
    story = story_of("a", "b")
    story.succeeds("a")
    stop(story)
    stopped_by = story.run.stopping_cause
    story.rejects("b")
    assert story.run.compensation_cause == stopped_by
    assert story.run.stopping_cause is None
    assert stopped_by is not None
    if stop is by_cancel:
        assert (stopped_by.code, stopped_by.operator) == ("cancelled", "ann")
        assert stopped_by.reason == "changed my mind"
    else:
        assert stopped_by.code == "deadline"


def test_rule_5_cancelling_twice_changes_nothing(stop):
    story = story_of("a", "b")
    story.succeeds("a")
    stop(story)
    assert story.cancels().ignored_reason == "already_stopping"
    story.succeeds("b")
    assert story.cancels().ignored_reason == "already_stopping"
    story.compensations_succeed("b", "a")
    assert story.cancels().ignored_reason == "already_stopping"


def test_rule_5_a_pivot_in_flight_that_is_rejected_lets_the_run_turn_back(stop):
    story = story_of("a", "p", "z", pivot="p")
    story.succeeds("a")
    stop(story)
    story.rejects("p")
    assert story.sent_commands == ["undo.a#1"]


def test_rule_5_a_pivot_in_flight_that_succeeds_overtakes_the_stop(stop):
    story = story_of("a", "p", "z", pivot="p")
    story.succeeds("a")
    stop(story)
    story.succeeds("p")
    assert isinstance(story.last_decision.events[1], StopSuperseded)
    assert story.run.stopping_cause is None
    assert story.sent_commands == ["do.z#1"]
    story.succeeds("z")
    assert story.status is Status.COMPLETED


def test_rule_5_a_pivot_in_flight_nobody_can_undo_that_times_out_needs_a_person(stop):
    story = story_of("a", "p", pivot="p")
    story.succeeds("a")
    stop(story)
    story.timer_fires()
    assert story.incident.cause == "not_compensatable"
    assert story.sent_commands == []
    story.resolves("skip")
    assert story.sent_commands == ["undo.a#1"]


def test_rule_5_after_the_pivot_cancel_is_refused_with_a_reason():
    story = story_of("p", "z", pivot="p")
    story.succeeds("p")
    assert story.cancels().refusal == (
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


def test_rule_5_the_deadline_and_a_timeout_at_the_same_moment_turn_back_at_once():
    story = DeciderScenario(sequential_saga("a", deadline=TIMEOUT))
    story.timer_fires(TIMEOUT)
    assert story.status is Status.COMPENSATING
    assert story.run.compensation_cause is not None
    assert story.run.compensation_cause.code == "deadline"
    assert story.sent_commands == ["undo.a#1"]


def test_rule_5_cancel_awaits_every_branch():
    story = DeciderScenario(branching_saga())
    story.succeeds("root")
    story.cancels()
    story.succeeds("left")
    assert story.status is Status.RUNNING
    story.rejects("right")
    assert story.sent_commands == ["undo.left#1"]


def test_without_a_deadline_time_alone_turns_nothing_back():
    story = DeciderScenario(sequential_saga("a"))
    story.succeeds("a")
    assert story.run.deadline is None
    assert {send.direction for send in story.sends} == {Direction.ACTION}
