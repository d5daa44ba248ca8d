"""docs/semantics.md, 2, and P3: compensation."""

from datetime import timedelta

from saga_engine import Retry, Saga
from saga_engine.decider.run import StepStatus
from saga_engine.vocabulary import Status
from tests.kit.decider_scenario import COMPENSATION, DeciderScenario, add_step, sequential_saga


def compensating_run(*names: str) -> DeciderScenario:
    """The steps succeeded and the one after them was rejected."""
    scenario = DeciderScenario(sequential_saga(*names, "last"))
    for name in names:
        scenario.succeeds(name)
    scenario.rejects("last")
    return scenario


def test_p3_steps_are_compensated_in_reverse_order_one_after_the_other():
    scenario = compensating_run("a", "b", "c")
    assert scenario.sent_commands == ["undo.c#1"]
    scenario.compensations_succeed("c")
    assert scenario.sent_commands == ["undo.b#1"]
    scenario.compensations_succeed("b")
    assert scenario.sent_commands == ["undo.a#1"]
    before = scenario.status
    assert before is Status.COMPENSATING
    scenario.compensations_succeed("a")
    assert scenario.status is Status.COMPENSATED
    assert scenario.run.finished_at == scenario.now


def test_a_run_without_effects_is_compensated_at_once():
    scenario = DeciderScenario(sequential_saga("a"))
    scenario.rejects("a")
    assert scenario.status is Status.COMPENSATED


def test_a_read_only_step_is_never_compensated():
    saga = Saga("look", version=1, input=dict)
    add_step(saga, "look", compensated=False, read_only=True)
    add_step(saga, "book")
    scenario = DeciderScenario(saga)
    scenario.succeeds("look")
    scenario.rejects("book")
    assert scenario.status is Status.COMPENSATED


def test_a_compensation_has_its_own_idempotency_key():
    scenario = compensating_run("a")
    assert scenario.sends[-1].idempotency_key == "r-1/a/compensation/1"


def test_rule_2_a_compensation_has_its_own_retry_policy_and_timeout():
    saga = Saga("own", version=1, input=dict)
    step = add_step(saga, "a", compensated=False)

    @step.compensation(
        command="undo.a",
        timeout=timedelta(seconds=3),
        retry=Retry(attempts=3, initial=timedelta(seconds=2), factor=1, jitter=0),
    )
    def undo(order: dict) -> dict:
        return {}

    scenario = DeciderScenario(saga)
    scenario.cancels()
    scenario.succeeds("a")
    for attempt in (1, 2):
        assert scenario.progress_of("a", COMPENSATION).due_at == scenario.now + timedelta(seconds=3)
        scenario.timer_fires()
        assert scenario.progress_of("a", COMPENSATION).due_at == scenario.now + timedelta(seconds=2)
        scenario.timer_fires()
        assert scenario.sent_commands == [f"undo.a#{attempt + 1}"]
    scenario.timer_fires()
    assert scenario.incident.cause == "compensation_unknown"
    assert len({send.idempotency_key for send in scenario.sends[1:]}) == 1


def test_rule_2_a_compensation_without_attempts_left_opens_an_incident():
    scenario = compensating_run("a", "b")
    for _ in range(2):
        scenario.fails("b", direction=COMPENSATION)
        scenario.timer_fires()
    assert scenario.incident.cause == "compensation_failed"
    assert scenario.incident.message == "oops: It broke."
    assert (scenario.incident.step, scenario.incident.direction) == ("b", COMPENSATION)
    assert scenario.progress_of("a", COMPENSATION).status is StepStatus.PENDING
    assert scenario.status is Status.COMPENSATING


def test_rule_2_independent_compensations_go_on():
    saga = Saga("two-rows", version=1, input=dict)
    for row in ("a", "b"):
        first = add_step(saga, f"{row}1", after=[])
        add_step(saga, f"{row}2", after=[first])
    scenario = DeciderScenario(saga)
    for name in ("a1", "b1", "a2"):
        scenario.succeeds(name)
    scenario.cancels()
    scenario.succeeds("b2")
    assert scenario.sent_commands == ["undo.b2#1", "undo.a2#1"]
    scenario.rejects("b2", direction=COMPENSATION)
    assert scenario.incident.step == "b2"
    scenario.compensations_succeed("a2")
    assert scenario.sent_commands == ["undo.a1#1"]
    scenario.compensations_succeed("a1")
    assert scenario.progress_of("b1", COMPENSATION).attempts == 0
    assert scenario.status is Status.COMPENSATING


def test_a_compensation_that_is_rejected_needs_a_person():
    scenario = compensating_run("a")
    scenario.rejects("a", "too_late", direction=COMPENSATION)
    assert scenario.incident.cause == "compensation_rejected"
    assert scenario.incident.message == "too_late"


def test_a_compensation_with_no_queue_needs_a_person():
    scenario = compensating_run("a")
    scenario.unroutable("a", COMPENSATION)
    scenario.timer_fires()
    scenario.unroutable("a", COMPENSATION)
    assert scenario.incident.cause == "unroutable"


def test_a_malformed_reply_of_a_compensation_needs_a_person():
    scenario = compensating_run("a")
    scenario.malformed_reply("a", COMPENSATION)
    assert scenario.incident.cause == "reply_unreadable"
    assert scenario.incident.message == "The body is not JSON."


def test_a_late_confirmation_of_a_compensation_closes_its_incident():
    scenario = compensating_run("a")
    scenario.attempts_exhausted("a", COMPENSATION)
    scenario.compensations_succeed("a")
    assert scenario.run.incidents == {}
    assert scenario.status is Status.COMPENSATED


def test_a_compensation_confirmed_twice_is_a_duplicate():
    scenario = compensating_run("a")
    scenario.compensations_succeed("a")
    assert scenario.succeeds("a", direction=COMPENSATION).ignored_reason == "duplicate"


def test_a_compensation_confirmed_after_an_operator_skipped_it_is_late():
    scenario = compensating_run("a")
    scenario.attempts_exhausted("a", COMPENSATION)
    scenario.resolves("skip")
    assert scenario.status is Status.COMPENSATED
    assert scenario.succeeds("a", direction=COMPENSATION).ignored_reason == "late"
