"""docs/semantics.md, 2, and P3: going back."""

from datetime import timedelta

from saga_engine import Retry, Saga
from saga_engine.decider.run import StepStatus
from saga_engine.vocabulary import Status
from tests.kit.decider_scenario import COMPENSATION, DeciderScenario, add_step, sequential_saga


def turned_back(*names: str) -> DeciderScenario:
    """The steps succeeded and the one after them was rejected."""
    story = DeciderScenario(sequential_saga(*names, "last"))
    for name in names:
        story.succeeds(name)
    story.rejects("last")
    return story


def test_p3_steps_are_compensated_in_reverse_order_one_after_the_other():
    story = turned_back("a", "b", "c")
    assert story.sent_commands == ["undo.c#1"]
    story.compensations_succeed("c")
    assert story.sent_commands == ["undo.b#1"]
    story.compensations_succeed("b")
    assert story.sent_commands == ["undo.a#1"]
    before = story.status
    assert before is Status.COMPENSATING
    story.compensations_succeed("a")
    assert story.status is Status.COMPENSATED
    assert story.run.finished_at == story.now


def test_a_run_without_effects_is_compensated_at_once():
    story = DeciderScenario(sequential_saga("a"))
    story.rejects("a")
    assert story.status is Status.COMPENSATED


def test_a_read_only_step_is_never_compensated():
    saga = Saga("look", version=1, input=dict)
    add_step(saga, "look", compensated=False, read_only=True)
    add_step(saga, "book")
    story = DeciderScenario(saga)
    story.succeeds("look")
    story.rejects("book")
    assert story.status is Status.COMPENSATED


def test_a_compensation_has_an_idempotency_key_of_its_own():
    story = turned_back("a")
    assert story.sends[-1].idempotency_key == "r-1/a/compensation/1"


def test_rule_2_a_compensation_has_its_own_policy_attempts_and_timeout():
    saga = Saga("own", version=1, input=dict)
    step = add_step(saga, "a", compensated=False)

    @step.compensation(
        command="undo.a",
        timeout=timedelta(seconds=3),
        retry=Retry(attempts=3, initial=timedelta(seconds=2), factor=1, jitter=0),
    )
    def undo(order: dict) -> dict:
        return {}

    story = DeciderScenario(saga)
    story.cancels()
    story.succeeds("a")
    for attempt in (1, 2):
        assert story.progress_of("a", COMPENSATION).due_at == story.now + timedelta(seconds=3)
        story.timer_fires()
        assert story.progress_of("a", COMPENSATION).due_at == story.now + timedelta(seconds=2)
        story.timer_fires()
        assert story.sent_commands == [f"undo.a#{attempt + 1}"]
    story.timer_fires()
    assert story.incident.cause == "compensation_unknown"
    assert len({send.idempotency_key for send in story.sends[1:]}) == 1


def test_rule_2_when_a_compensation_runs_out_the_run_gets_an_incident():
    story = turned_back("a", "b")
    for _ in range(2):
        story.fails("b", direction=COMPENSATION)
        story.timer_fires()
    assert story.incident.cause == "compensation_failed"
    assert story.incident.message == "oops: It broke."
    assert (story.incident.step, story.incident.direction) == ("b", COMPENSATION)
    assert story.progress_of("a", COMPENSATION).status is StepStatus.PENDING
    assert story.status is Status.COMPENSATING


def test_rule_2_other_compensations_that_do_not_depend_on_it_go_on():
    saga = Saga("two-rows", version=1, input=dict)
    for row in ("a", "b"):
        first = add_step(saga, f"{row}1", after=[])
        add_step(saga, f"{row}2", after=[first])
    story = DeciderScenario(saga)
    for name in ("a1", "b1", "a2"):
        story.succeeds(name)
    story.cancels()
    story.succeeds("b2")
    assert story.sent_commands == ["undo.b2#1", "undo.a2#1"]
    story.rejects("b2", direction=COMPENSATION)
    assert story.incident.step == "b2"
    story.compensations_succeed("a2")
    assert story.sent_commands == ["undo.a1#1"]
    story.compensations_succeed("a1")
    assert story.progress_of("b1", COMPENSATION).attempts == 0
    assert story.status is Status.COMPENSATING


def test_a_compensation_that_is_rejected_needs_a_person():
    story = turned_back("a")
    story.rejects("a", "too_late", direction=COMPENSATION)
    assert story.incident.cause == "compensation_rejected"
    assert story.incident.message == "too_late"


def test_a_compensation_with_no_queue_needs_a_person():
    story = turned_back("a")
    story.unroutable("a", COMPENSATION)
    story.timer_fires()
    story.unroutable("a", COMPENSATION)
    assert story.incident.cause == "unroutable"


def test_a_compensation_whose_answer_is_garbled_needs_a_person():
    story = turned_back("a")
    story.malformed_reply("a", COMPENSATION)
    assert story.incident.cause == "reply_unreadable"
    assert story.incident.message == "The body is not JSON."


def test_a_compensation_that_is_confirmed_after_all_closes_its_incident():
    story = turned_back("a")
    story.attempts_exhausted("a", COMPENSATION)
    story.compensations_succeed("a")
    assert story.run.incidents == {}
    assert story.status is Status.COMPENSATED


def test_a_compensation_confirmed_twice_is_a_duplicate():
    story = turned_back("a")
    story.compensations_succeed("a")
    assert story.succeeds("a", direction=COMPENSATION).ignored_reason == "duplicate"


def test_a_compensation_confirmed_after_an_operator_skipped_it_is_late():
    story = turned_back("a")
    story.attempts_exhausted("a", COMPENSATION)
    story.resolves("skip")
    assert story.status is Status.COMPENSATED
    assert story.succeeds("a", direction=COMPENSATION).ignored_reason == "late"
