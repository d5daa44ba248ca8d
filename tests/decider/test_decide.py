"""What decide does with any trigger, whatever its meaning: starts, repeats, strangers."""

from datetime import timedelta

import pytest

from saga_engine import Saga
from saga_engine.decider.decide import decide, start_blocked
from saga_engine.decider.effects import effects, wake_at
from saga_engine.decider.events import AttemptStarted, RunCompleted, RunStarted
from saga_engine.decider.run import StepStatus
from saga_engine.decider.triggers import (
    Cancel,
    CommandUnroutable,
    MalformedReply,
    ReplyReceived,
    Start,
    Trigger,
    WakeUp,
)
from saga_engine.vocabulary import IncidentCause, Outcome, Status
from tests.kit.decider_scenario import (
    ACTION,
    COMPENSATION,
    NOON,
    TIMEOUT,
    DeciderScenario,
    add_step,
    assert_replays,
    sequential_saga,
)


def test_a_start_sends_the_first_step_only():
    story = DeciderScenario(sequential_saga("a", "b"))
    assert [type(event) for event in story.journal] == [RunStarted, AttemptStarted]
    assert story.sent_commands == ["do.a#1"]


def test_a_command_carries_everything_the_wire_needs():
    (send,) = DeciderScenario(sequential_saga("a")).sends
    assert (send.run_id, send.saga, send.version, send.step) == ("r-1", "trip", 1, "a")
    assert (send.direction, send.attempt, send.command) == (ACTION, 1, "do.a")
    assert send.payload == {"do": "a", "order": 7}
    assert send.idempotency_key == "r-1/a/action/1"
    assert send.due_at == NOON + TIMEOUT


def test_each_step_starts_when_the_one_before_it_succeeded_and_the_last_completes_the_run():
    story = DeciderScenario(sequential_saga("a", "b"))
    story.succeeds("a", {"x": 1})
    assert story.sent_commands == ["do.b#1"]
    story.succeeds("b", [2])
    assert story.sent_commands == []
    assert story.status is Status.COMPLETED
    assert story.run.finished_at == NOON
    assert story.run.result == {"a": {"x": 1}, "b": [2]}
    assert list(story.run.result) == ["a", "b"]


def test_p2_completed_means_every_step_succeeded():
    story = DeciderScenario(sequential_saga("a", "b"))
    story.succeeds("a")
    story.succeeds("b")
    assert isinstance(story.journal[-1], RunCompleted)
    assert {step.action.status for step in story.run.steps.values()} == {StepStatus.SUCCEEDED}


def test_an_input_that_does_not_fit_is_refused_and_makes_no_run():
    decision = decide(sequential_saga("a"), None, Start("r", None, [1]), NOON)
    assert decision.run is None
    assert decision.events == ()
    assert decision.refusal == "The input does not fit dict (body: dict_type)."


def test_an_accepted_run_that_cannot_go_on_begins_with_incidents_at_its_first_steps():
    saga = Saga("trip", version=1, input=dict)
    for name, after in (("a", []), ("b", []), ("c", ["a", "b"])):
        add_step(saga, name, after=after)
    decision = start_blocked(
        saga, Start("r", "k", [1]), NOON, IncidentCause.INPUT_INVALID, "It does not fit."
    )
    run = decision.run
    assert run is not None
    assert [(each.step, each.cause) for each in run.incidents.values()] == [
        ("a", "input_invalid"),
        ("b", "input_invalid"),
    ]
    assert (run.key, run.input, run.version) == ("k", [1], 1)
    assert not list(effects(run, decision.events))
    assert_replays(list(decision.events), run)
    undone = decide(saga, run, Cancel("Ada", "not what I meant"), NOON)
    assert undone.run is not None
    assert undone.run.status is Status.COMPENSATED


def test_starting_a_run_that_is_there_changes_nothing():
    story = DeciderScenario(sequential_saga("a"))
    assert story.apply(Start("r-1", "k-1", {})).ignored_reason == "duplicate"


@pytest.mark.parametrize(
    "trigger",
    [
        WakeUp(),
        Cancel("a", "b"),
        ReplyReceived(step="a", direction=ACTION, attempt=1, outcome=Outcome.SUCCEEDED),
    ],
)
def test_a_trigger_for_a_run_that_is_not_there_is_foreign(trigger):
    decision = decide(sequential_saga("a"), None, trigger, NOON)
    assert (decision.run, decision.events, decision.ignored_reason) == (None, (), "uncorrelated")


@pytest.mark.parametrize(
    ("step", "direction", "attempt"),
    [
        ("stranger", ACTION, 1),
        ("a", ACTION, 0),
        ("a", ACTION, -1),
        ("a", ACTION, 2),
        ("a", COMPENSATION, 1),
        ("b", ACTION, 1),
    ],
)
def test_what_answers_an_attempt_that_was_never_made_is_foreign(step, direction, attempt):
    story = DeciderScenario(sequential_saga("a", "b"))
    replies = [
        ReplyReceived(step=step, direction=direction, attempt=attempt, outcome=outcome)
        for outcome in Outcome
    ]
    others: list[Trigger] = [
        MalformedReply(step=step, direction=direction, attempt=attempt, problem="?"),
        CommandUnroutable(step, direction, attempt),
    ]
    for trigger in (*replies, *others):
        assert story.apply(trigger).ignored_reason == "uncorrelated"


def test_the_same_success_twice_is_a_duplicate():
    story = DeciderScenario(sequential_saga("a", "b"))
    story.succeeds("a")
    assert story.succeeds("a").ignored_reason == "duplicate"
    story.succeeds("b")
    assert story.succeeds("b").ignored_reason == "duplicate"


def test_a_no_of_an_attempt_that_is_not_the_last_is_late():
    story = DeciderScenario(sequential_saga("a"))
    story.fails("a")
    story.timer_fires()
    assert story.sent_commands == ["do.a#2"]
    assert story.rejects("a", attempt=1).ignored_reason == "late"
    assert story.fails("a", attempt=1).ignored_reason == "late"
    assert story.apply(CommandUnroutable("a", ACTION, 1)).ignored_reason == "late"
    assert (
        story.apply(
            MalformedReply(step="a", direction=ACTION, attempt=1, problem="?")
        ).ignored_reason
        == "late"
    )


def test_a_second_failure_of_the_same_attempt_is_late():
    story = DeciderScenario(sequential_saga("a"))
    story.fails("a")
    assert story.fails("a").ignored_reason == "late"
    assert story.progress_of("a").status is StepStatus.AWAITING_RETRY


def test_a_success_of_an_older_attempt_counts():
    story = DeciderScenario(sequential_saga("a", "b"))
    story.timer_fires()
    story.timer_fires()
    assert story.sent_commands == ["do.a#2"]
    story.succeeds("a", attempt=1)
    assert story.sent_commands == ["do.b#1"]


def test_a_rejection_that_arrives_after_the_timeout_counts_while_the_retry_waits():
    story = DeciderScenario(sequential_saga("a"))
    story.timer_fires()
    story.rejects("a")
    assert story.status is Status.COMPENSATED


def test_a_wake_up_before_anything_is_due_changes_nothing():
    story = DeciderScenario(sequential_saga("a"))
    assert story.timer_fires(timedelta(seconds=29)).events == ()
    assert story.last_decision.ignored_reason is None


def test_a_wake_up_of_a_finished_run_is_ignored():
    story = DeciderScenario(sequential_saga("a"))
    story.succeeds("a")
    assert story.timer_fires().ignored_reason == "finished"
    assert wake_at(story.saga, story.run) is None


def test_a_run_wakes_at_the_earliest_of_its_timeouts_and_its_deadline():
    story = DeciderScenario(sequential_saga("a", deadline=timedelta(minutes=1)))
    assert wake_at(story.saga, story.run) == NOON + TIMEOUT
    early = DeciderScenario(sequential_saga("a", deadline=timedelta(seconds=5)))
    assert wake_at(early.saga, early.run) == NOON + timedelta(seconds=5)


def test_a_run_that_only_waits_for_a_person_needs_no_wake_up():
    story = DeciderScenario(sequential_saga("a", pivot="a"))
    story.attempts_exhausted("a")
    assert story.incident.cause == "step_unknown"
    assert wake_at(story.saga, story.run) is None


def test_rule_8_a_run_is_pinned_to_the_name_version_and_fingerprint_of_its_definition():
    story = DeciderScenario(sequential_saga("a"))
    saga = story.saga
    pinned = (story.run.saga, story.run.version, story.run.fingerprint)
    assert pinned == (saga.name, saga.version, saga.fingerprint)


def test_the_same_arguments_give_the_same_decision():
    story = DeciderScenario(sequential_saga("a", "b"))
    trigger = ReplyReceived(step="a", direction=ACTION, attempt=1, outcome=Outcome.FAILED)
    assert decide(story.saga, story.run, trigger, NOON) == decide(
        story.saga, story.run, trigger, NOON
    )


def test_the_order_of_a_snapshots_keys_changes_no_decision():
    saga = Saga("beside", version=1, input=dict)
    for name in ("long_name", "b", "a"):

        def action(order: dict) -> dict:
            return {}

        action.__name__ = name
        saga.step(command="do.it", after=[], read_only=True)(action)
    story = DeciderScenario(saga)
    shuffled = type(story.run)(
        **{
            **{name: getattr(story.run, name) for name in story.run.__slots__},
            "steps": dict(sorted(story.run.steps.items())),
        }
    )
    later = NOON + TIMEOUT
    assert (
        decide(saga, shuffled, WakeUp(), later).events
        == decide(saga, story.run, WakeUp(), later).events
    )


def test_a_reply_without_a_failure_is_recorded_by_its_outcome():
    story = DeciderScenario(sequential_saga("a"))
    story.apply(ReplyReceived(step="a", direction=ACTION, attempt=1, outcome=Outcome.REJECTED))
    assert story.run.compensation_cause is not None
    assert story.run.compensation_cause.failure is not None
    assert story.run.compensation_cause.failure.text == "rejected"


def test_a_reply_that_claims_an_unknown_outcome_counts_as_failed():
    story = DeciderScenario(sequential_saga("a"))
    story.apply(ReplyReceived(step="a", direction=ACTION, attempt=1, outcome=Outcome.UNKNOWN))
    assert story.progress_of("a").status is StepStatus.AWAITING_RETRY


def test_effects_are_only_the_commands_of_the_given_events():
    story = DeciderScenario(sequential_saga("a", "b"))
    assert list(effects(story.run, [])) == []
