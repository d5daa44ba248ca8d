"""What decide does with any trigger: starts, repeated and uncorrelated messages, wake-ups."""

from dataclasses import replace
from datetime import timedelta

import pytest

from saga_engine import Saga
from saga_engine.decider.commands import commands_to_send, wake_at
from saga_engine.decider.decide import decide, start_blocked
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
    scenario = DeciderScenario(sequential_saga("a", "b"))
    assert [type(event) for event in scenario.journal] == [RunStarted, AttemptStarted]
    assert scenario.sent_commands == ["do.a#1"]


def test_each_step_starts_when_the_one_before_it_succeeded_and_the_last_completes_the_run():
    scenario = DeciderScenario(sequential_saga("a", "b"))
    scenario.succeeds("a", {"x": 1})
    assert scenario.sent_commands == ["do.b#1"]
    scenario.succeeds("b", [2])
    assert scenario.sent_commands == []
    assert scenario.status is Status.COMPLETED
    assert scenario.run.finished_at == NOON
    assert scenario.run.result == {"a": {"x": 1}, "b": [2]}
    assert list(scenario.run.result) == ["a", "b"]


def test_p2_completed_means_every_step_succeeded():
    scenario = DeciderScenario(sequential_saga("a", "b"))
    scenario.succeeds("a")
    scenario.succeeds("b")
    assert isinstance(scenario.journal[-1], RunCompleted)
    assert {step.action.status for step in scenario.run.steps.values()} == {StepStatus.SUCCEEDED}


def test_an_input_that_does_not_fit_is_refused_and_makes_no_run():
    decision = decide(sequential_saga("a"), None, Start("r", None, [1]), NOON)
    assert decision.run is None
    assert decision.events == ()
    assert decision.refusal == "The input does not fit dict (body: dict_type)."


def test_a_blocked_start_has_incidents_at_its_first_steps():
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
    assert not list(commands_to_send(run, decision.events))
    assert_replays(list(decision.events), run)
    undone = decide(saga, run, Cancel("Ada", "not what I meant"), NOON)
    assert undone.run is not None
    assert undone.run.status is Status.COMPENSATED


def test_a_start_of_an_existing_run_is_a_duplicate():
    scenario = DeciderScenario(sequential_saga("a"))
    assert scenario.apply(Start("r-1", "k-1", {})).ignored_reason == "duplicate"


@pytest.mark.parametrize(
    "trigger",
    [
        WakeUp(),
        Cancel("a", "b"),
        ReplyReceived(step="a", direction=ACTION, attempt=1, outcome=Outcome.SUCCEEDED),
    ],
)
def test_a_trigger_for_an_unknown_run_is_uncorrelated(trigger):
    decision = decide(sequential_saga("a"), None, trigger, NOON)
    assert (decision.run, decision.events, decision.ignored_reason) == (None, (), "uncorrelated")


@pytest.mark.parametrize(
    ("step", "direction", "attempt"),
    [
        ("unknown", ACTION, 1),
        ("a", ACTION, 0),
        ("a", ACTION, -1),
        ("a", ACTION, 2),
        ("a", COMPENSATION, 1),
        ("b", ACTION, 1),
    ],
)
def test_a_message_about_an_attempt_never_made_is_uncorrelated(step, direction, attempt):
    scenario = DeciderScenario(sequential_saga("a", "b"))
    replies = [
        ReplyReceived(step=step, direction=direction, attempt=attempt, outcome=outcome)
        for outcome in Outcome
    ]
    others: list[Trigger] = [
        MalformedReply(step=step, direction=direction, attempt=attempt, problem="?"),
        CommandUnroutable(step, direction, attempt),
    ]
    for trigger in (*replies, *others):
        assert scenario.apply(trigger).ignored_reason == "uncorrelated"


def test_the_same_success_twice_is_a_duplicate():
    scenario = DeciderScenario(sequential_saga("a", "b"))
    scenario.succeeds("a")
    assert scenario.succeeds("a").ignored_reason == "duplicate"
    scenario.succeeds("b")
    assert scenario.succeeds("b").ignored_reason == "duplicate"


def test_a_failure_of_an_older_attempt_is_late():
    scenario = DeciderScenario(sequential_saga("a"))
    scenario.fails("a")
    scenario.timer_fires()
    assert scenario.sent_commands == ["do.a#2"]
    assert scenario.rejects("a", attempt=1).ignored_reason == "late"
    assert scenario.fails("a", attempt=1).ignored_reason == "late"
    assert scenario.apply(CommandUnroutable("a", ACTION, 1)).ignored_reason == "late"
    assert (
        scenario.apply(
            MalformedReply(step="a", direction=ACTION, attempt=1, problem="?")
        ).ignored_reason
        == "late"
    )


def test_a_second_failure_of_the_same_attempt_is_late():
    scenario = DeciderScenario(sequential_saga("a"))
    scenario.fails("a")
    assert scenario.fails("a").ignored_reason == "late"
    assert scenario.progress_of("a").status is StepStatus.AWAITING_RETRY


def test_a_success_of_an_older_attempt_counts():
    scenario = DeciderScenario(sequential_saga("a", "b"))
    scenario.timer_fires()
    scenario.timer_fires()
    assert scenario.sent_commands == ["do.a#2"]
    scenario.succeeds("a", attempt=1)
    assert scenario.sent_commands == ["do.b#1"]


def test_a_rejection_after_the_timeout_counts_before_the_retry():
    scenario = DeciderScenario(sequential_saga("a"))
    scenario.timer_fires()
    scenario.rejects("a")
    assert scenario.status is Status.COMPENSATED


def test_a_wake_up_before_anything_is_due_changes_nothing():
    scenario = DeciderScenario(sequential_saga("a"))
    assert scenario.timer_fires(timedelta(seconds=29)).events == ()
    assert scenario.last_decision.ignored_reason is None


def test_a_wake_up_of_a_finished_run_is_ignored():
    scenario = DeciderScenario(sequential_saga("a"))
    scenario.succeeds("a")
    assert scenario.timer_fires().ignored_reason == "finished"
    assert wake_at(scenario.saga, scenario.run) is None


def test_rule_8_a_run_is_pinned_to_its_definition():
    scenario = DeciderScenario(sequential_saga("a"))
    saga = scenario.saga
    pinned = (scenario.run.saga, scenario.run.version, scenario.run.fingerprint)
    assert pinned == (saga.name, saga.version, saga.fingerprint)


def test_the_same_arguments_give_the_same_decision():
    scenario = DeciderScenario(sequential_saga("a", "b"))
    trigger = ReplyReceived(step="a", direction=ACTION, attempt=1, outcome=Outcome.FAILED)
    assert decide(scenario.saga, scenario.run, trigger, NOON) == decide(
        scenario.saga, scenario.run, trigger, NOON
    )


def test_the_order_of_keys_in_a_snapshot_changes_no_decision():
    saga = Saga("beside", version=1, input=dict)
    for name in ("long_name", "b", "a"):

        def action(order: dict) -> dict:
            return {}

        action.__name__ = name
        saga.step(command="do.it", after=[], read_only=True)(action)
    scenario = DeciderScenario(saga)
    shuffled = replace(scenario.run, steps=dict(sorted(scenario.run.steps.items())))
    later = NOON + TIMEOUT
    assert (
        decide(saga, shuffled, WakeUp(), later).events
        == decide(saga, scenario.run, WakeUp(), later).events
    )


def test_a_reply_without_a_failure_is_recorded_by_its_outcome():
    scenario = DeciderScenario(sequential_saga("a"))
    scenario.apply(ReplyReceived(step="a", direction=ACTION, attempt=1, outcome=Outcome.REJECTED))
    assert scenario.run.compensation_cause is not None
    assert scenario.run.compensation_cause.failure is not None
    assert scenario.run.compensation_cause.failure.text == "rejected"


def test_a_reply_that_claims_an_unknown_outcome_counts_as_failed():
    scenario = DeciderScenario(sequential_saga("a"))
    scenario.apply(ReplyReceived(step="a", direction=ACTION, attempt=1, outcome=Outcome.UNKNOWN))
    assert scenario.progress_of("a").status is StepStatus.AWAITING_RETRY
