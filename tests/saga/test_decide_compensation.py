"""docs/semantics.md, 2, and P3: going back."""

from datetime import timedelta

from saga_engine import Retry, Saga
from saga_engine.decider.run import StepStatus
from saga_engine.vocabulary import Status
from tests.saga.scenario import COMPENSATION, Story, add, sequence


def turned_back(*names: str) -> Story:
    """The steps succeeded and the one after them was rejected."""
    story = Story(sequence(*names, "last"))
    for name in names:
        story.succeeds(name)
    story.rejects("last")
    return story


def test_p3_steps_are_compensated_in_reverse_order_one_after_the_other():
    story = turned_back("a", "b", "c")
    assert story.sent == ["undo.c#1"]
    story.undone("c")
    assert story.sent == ["undo.b#1"]
    story.undone("b")
    assert story.sent == ["undo.a#1"]
    before = story.status
    assert before is Status.COMPENSATING
    story.undone("a")
    assert story.status is Status.COMPENSATED
    assert story.run.finished_at == story.now


def test_a_run_without_effects_is_compensated_at_once():
    story = Story(sequence("a"))
    story.rejects("a")
    assert story.status is Status.COMPENSATED


def test_a_read_only_step_is_never_compensated():
    saga = Saga("look", version=1, input=dict)
    add(saga, "look", undo=False, read_only=True)
    add(saga, "book")
    story = Story(saga)
    story.succeeds("look")
    story.rejects("book")
    assert story.status is Status.COMPENSATED


def test_a_compensation_has_an_idempotency_key_of_its_own():
    story = turned_back("a")
    assert story.sends[-1].idempotency_key == "r-1/a/compensation/1"


def test_rule_2_a_compensation_has_its_own_policy_attempts_and_timeout():
    saga = Saga("own", version=1, input=dict)
    step = add(saga, "a", undo=False)

    @step.compensation(
        command="undo.a",
        timeout=timedelta(seconds=3),
        retry=Retry(attempts=3, initial=timedelta(seconds=2), factor=1, jitter=0),
    )
    def undo(order: dict) -> dict:
        return {}

    story = Story(saga)
    story.cancels()
    story.succeeds("a")
    for attempt in (1, 2):
        assert story.at("a", COMPENSATION).due_at == story.now + timedelta(seconds=3)
        story.wakes()
        assert story.at("a", COMPENSATION).due_at == story.now + timedelta(seconds=2)
        story.wakes()
        assert story.sent == [f"undo.a#{attempt + 1}"]
    story.wakes()
    assert story.incident.cause == "compensation_unknown"
    assert len({send.idempotency_key for send in story.sends[1:]}) == 1


def test_rule_2_when_a_compensation_runs_out_the_run_gets_an_incident():
    story = turned_back("a", "b")
    for _ in range(2):
        story.fails("b", direction=COMPENSATION)
        story.wakes()
    assert story.incident.cause == "compensation_failed"
    assert story.incident.message == "oops: It broke."
    assert (story.incident.step, story.incident.direction) == ("b", COMPENSATION)
    assert story.at("a", COMPENSATION).status is StepStatus.PENDING
    assert story.status is Status.COMPENSATING


def test_rule_2_other_compensations_that_do_not_depend_on_it_go_on():
    saga = Saga("two-rows", version=1, input=dict)
    for row in ("a", "b"):
        first = add(saga, f"{row}1", after=[])
        add(saga, f"{row}2", after=[first])
    story = Story(saga)
    for name in ("a1", "b1", "a2"):
        story.succeeds(name)
    story.cancels()
    story.succeeds("b2")
    assert story.sent == ["undo.b2#1", "undo.a2#1"]
    story.rejects("b2", direction=COMPENSATION)
    assert story.incident.step == "b2"
    story.undone("a2")
    assert story.sent == ["undo.a1#1"]
    story.undone("a1")
    assert story.at("b1", COMPENSATION).attempts == 0
    assert story.status is Status.COMPENSATING


def test_a_compensation_that_is_rejected_needs_a_person():
    story = turned_back("a")
    story.rejects("a", "too_late", direction=COMPENSATION)
    assert story.incident.cause == "compensation_rejected"
    assert story.incident.message == "too_late"


def test_a_compensation_with_no_queue_needs_a_person():
    story = turned_back("a")
    story.returns("a", COMPENSATION)
    story.wakes()
    story.returns("a", COMPENSATION)
    assert story.incident.cause == "unroutable"


def test_a_compensation_whose_answer_is_garbled_needs_a_person():
    story = turned_back("a")
    story.garbles("a", COMPENSATION)
    assert story.incident.cause == "reply_unreadable"
    assert story.incident.message == "The body is not JSON."


def test_a_compensation_that_is_confirmed_after_all_closes_its_incident():
    story = turned_back("a")
    story.exhausts("a", COMPENSATION)
    story.undone("a")
    assert story.run.incidents == {}
    assert story.status is Status.COMPENSATED


def test_a_compensation_confirmed_twice_is_a_duplicate():
    story = turned_back("a")
    story.undone("a")
    assert story.succeeds("a", direction=COMPENSATION).ignored == "duplicate"


def test_a_compensation_confirmed_after_an_operator_skipped_it_is_late():
    story = turned_back("a")
    story.exhausts("a", COMPENSATION)
    story.resolves("skip")
    assert story.status is Status.COMPENSATED
    assert story.succeeds("a", direction=COMPENSATION).ignored == "late"
