"""docs/semantics.md, 7: mapping functions, types and what participants answer may be anything."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from saga_engine import Saga
from saga_engine.decider.decide import decide
from saga_engine.decider.run import CompensationCause, KeptReply, Progress, StepRun, StepStatus
from saga_engine.decider.triggers import MalformedReply, ResolveIncident
from saga_engine.saga.rules import check
from saga_engine.vocabulary import (
    CompensationCode,
    EngineFailureCode,
    Failure,
    Outcome,
    Resolution,
    Status,
)
from tests.kit.decider_scenario import (
    ACTION,
    COMPENSATION,
    DeciderScenario,
    add_step,
    sequential_saga,
)


class Seat(BaseModel):
    row: int

    @field_validator("row")
    @classmethod
    def exists(cls, row: int) -> int:
        if row == 13:
            raise LookupError("there is no row 13, Mr Bond")
        return row


def flight(broken: list[Exception]) -> Saga:
    """Two steps; the mappings of `pay` and of `unbook` raise what is in *broken*."""
    saga = Saga("flight", version=1, input=dict)

    @saga.step(command="seat.book", reply=Seat)
    def book(order: dict) -> dict:
        return {}

    @book.compensation(command="seat.release")
    def unbook(order: dict, book: Seat | None) -> dict:
        if broken:
            raise broken[-1]
        return {"row": None if book is None else book.row}

    @saga.step(command="card.charge")
    def pay(book: Seat) -> dict:
        if broken:
            raise broken[-1]
        return {"row": book.row}

    @pay.compensation(command="card.refund")
    def refund(order: dict) -> dict:
        return {}

    return saga


def test_rule_7_a_mapping_that_raises_opens_an_incident_on_that_run():
    broken: list[Exception] = [ValueError("row \0 is \ud800 odd")]
    story = DeciderScenario(flight(broken))
    story.succeeds("book", {"row": 4})
    assert story.incident.cause == "mapping_failed"
    assert story.incident.step == "pay"
    assert "test_decide_mapping.py:" in story.incident.message
    assert " raised ValueError at " in story.incident.message
    assert "odd" not in story.incident.message
    assert story.progress_of("pay").attempts == 0


def test_rule_7_once_the_mapping_is_mended_an_operator_retries_it():
    broken: list[Exception] = [ValueError("no")]
    story = DeciderScenario(flight(broken))
    story.succeeds("book", {"row": 4})
    story.resolves("retry")
    assert story.incident.number == 2
    broken.clear()
    story.resolves("retry")
    assert story.sent_commands == ["card.charge#1"]


def test_rule_7_a_long_problem_is_cut():
    story = DeciderScenario(flight([]))
    story.apply(
        MalformedReply(
            step="book", direction=ACTION, attempt=1, problem="\0 \ud800 " + "x" * 10_000
        )
    )
    assert story.incident.message.startswith(r"\x00 \ud800 x")
    assert len(story.incident.message) == 500


def test_rule_7_a_mapping_that_never_sent_anything_leaves_nothing_to_undo():
    broken: list[Exception] = [ValueError("no")]
    story = DeciderScenario(flight(broken))
    story.succeeds("book", {"row": 4})
    broken.clear()
    story.cancels()
    assert story.progress_of("pay").status is StepStatus.FAILED
    assert story.sent_commands == ["seat.release#1"]


def test_rule_7_the_mapping_of_a_compensation_that_raises_opens_an_incident_too():
    broken: list[Exception] = []
    story = DeciderScenario(flight(broken))
    story.succeeds("book", {"row": 4})
    broken.append(RuntimeError("no"))
    story.rejects("pay")
    assert (story.incident.step, story.incident.direction) == ("book", COMPENSATION)
    broken.clear()
    story.resolves("retry")
    assert story.sends[-1].payload == {"row": 4}


def test_a_compensation_gets_none_for_a_reply_that_never_came():
    story = DeciderScenario(flight([]))
    story.attempts_exhausted("book")
    assert story.sends[-1].payload == {"row": None}


@pytest.mark.parametrize("payload", ["text \0", "\ud800", 2**64, object(), {1, 2}])
def test_rule_7_a_payload_that_cannot_travel_opens_an_incident(payload):
    saga = Saga("odd", version=1, input=dict)

    @saga.step(command="do.it", read_only=True)
    def odd(order: dict) -> list:
        wrong: list = [payload] if not isinstance(payload, set) else payload  # type: ignore[assignment]  # the mistake under test
        return wrong

    story = DeciderScenario(saga)
    assert story.incident.cause == "mapping_failed"


def test_rule_7_a_reply_that_does_not_validate_opens_an_incident():
    story = DeciderScenario(flight([]))
    story.succeeds("book", {"row": "secret"})
    assert story.incident.cause == "reply_invalid"
    assert story.incident.message == "The reply does not fit Seat (row: int_parsing)."
    assert story.status is Status.RUNNING


def test_rule_7_a_validator_that_raises_anything_opens_an_incident_without_quoting_the_value():
    story = DeciderScenario(flight([]))
    story.succeeds("book", {"row": 13})
    assert story.incident.message == "The reply cannot be read as Seat (LookupError)."


def test_rule_7_the_same_invalid_reply_again_is_a_duplicate():
    story = DeciderScenario(flight([]))
    story.succeeds("book", {})
    assert story.succeeds("book", {}).ignored_reason == "duplicate"


def test_rule_7_a_valid_reply_after_an_invalid_one_closes_the_incident():
    story = DeciderScenario(flight([]))
    story.succeeds("book", {})
    story.succeeds("book", {"row": 2})
    assert story.run.incidents == {}
    assert story.sent_commands == ["card.charge#1"]


def test_rule_7_a_step_whose_reply_did_not_validate_may_be_done_and_is_compensated():
    story = DeciderScenario(flight([]))
    story.succeeds("book", {})
    story.cancels()
    assert story.sends[-1].command == "seat.release"
    assert story.sends[-1].payload == {"row": None}


def test_rule_7_a_reply_that_cannot_be_read_opens_an_incident_while_in_flight_or_waiting():
    story = DeciderScenario(flight([]))
    story.malformed_reply("book")
    assert story.incident.cause == "reply_unreadable"
    assert story.malformed_reply("book").ignored_reason == "late"
    other = DeciderScenario(flight([]))
    other.timer_fires()
    other.malformed_reply("book")
    assert other.incident.cause == "reply_unreadable"
    assert other.progress_of("book").due_at is None


def test_a_no_to_a_blocked_step_is_left_to_the_person():
    story = DeciderScenario(flight([]))
    story.malformed_reply("book")
    assert story.rejects("book").ignored_reason == "late"
    assert story.fails("book").ignored_reason == "late"


def mended(reply: type) -> Saga:
    """Two deployments of one saga; in both `b` needs the reply of `a`, of the given type."""
    saga = Saga("mended", version=1, input=dict)
    add_step(saga, "a", reply=reply)

    def b(a: Any) -> dict:
        return {"a": a.row}

    b.__annotations__["a"] = reply
    saga.step(command="do.b", read_only=True)(b)
    return saga


def test_a_recorded_reply_that_does_not_fit_its_mended_type_blocks_the_step_that_needs_it():
    story = DeciderScenario(mended(dict))
    story.succeeds("a", {"row": 13})
    assert "AttributeError" in story.incident.message
    story.saga = mended(Seat)
    story.resolves("retry")
    assert "cannot be read as Seat" in story.incident.message


def test_a_retry_after_the_first_attempt_sends_the_very_same_bytes_and_maps_nothing():
    broken: list[Exception] = []
    story = DeciderScenario(flight(broken))
    story.succeeds("book", {"row": 4})
    broken.append(ValueError("no"))
    story.fails("pay")
    story.timer_fires()
    assert story.sent_commands == ["card.charge#2"]
    assert story.sends[-1].payload == {"row": 4}


def test_a_reply_an_operator_left_out_is_none_where_none_is_allowed():
    saga = Saga("maybe", version=1, input=dict)
    add_step(saga, "a", reply=Seat)

    @saga.step(command="do.b", read_only=True)
    def b(a: Seat | None) -> dict:
        return {"a": a is None}

    story = DeciderScenario(saga)
    story.malformed_reply("a")
    story.resolves("skip")
    assert story.sends[-1].payload == {"a": True}


def test_a_reply_that_is_missing_where_it_is_needed_blocks_the_step():
    story = DeciderScenario(sequential_saga("a", "b"))
    story.malformed_reply("a")
    story.resolves("skip")
    story.malformed_reply("b")
    story.saga = mended(Seat)
    assert story.progress_of("b").payload is not None
    story.state = replace(
        story.run, steps={**story.run.steps, "b": StepRun(Progress(status=StepStatus.BLOCKED))}
    )
    decision = decide(
        story.saga,
        story.run,
        ResolveIncident(
            incident_number=2, resolution=Resolution.RETRY, operator="ann", reason="why"
        ),
        story.now,
    )
    assert decision.run is not None
    (incident,) = decision.run.incidents.values()
    assert "there is no reply of step 'a'" in incident.message


def typed_pivot(reply: Any = int) -> Saga:
    """A pivot of that reply, and a step behind it whose reply is an integer."""
    saga = Saga("typed", version=1, input=dict)
    add_step(saga, "p", compensated=False, pivot=True, reply=reply)
    add_step(saga, "z", compensated=False, reply=int)
    return saga


def test_a_reply_that_does_not_fit_is_kept_with_its_incident():
    story = DeciderScenario(typed_pivot())
    story.succeeds("p", {"charge": "c-17"})
    assert story.incident.cause == "reply_invalid"
    assert story.incident.kept_reply == KeptReply(1, {"charge": "c-17"}, Outcome.SUCCEEDED)
    assert "c-17" not in story.incident.message


def test_a_retry_reads_the_kept_reply_with_the_fixed_definition_and_sends_nothing_again():
    story = DeciderScenario(typed_pivot())
    story.succeeds("p", {"charge": "c-17"})
    fixed = Saga("typed", version=1, input=dict)
    add_step(fixed, "p", compensated=False, pivot=True, reply=dict)
    add_step(fixed, "z", compensated=False, reply=int)
    check(fixed)
    story.saga = fixed
    story.resolves("retry")
    assert story.sent_commands == ["do.z#1"]
    assert (story.progress_of("p").status, story.progress_of("p").attempts) == (
        StepStatus.SUCCEEDED,
        1,
    )
    assert story.progress_of("p").reply == {"charge": "c-17"}
    assert story.run.incidents == {}


def test_a_retry_asks_the_participant_again_while_the_kept_reply_does_not_fit():
    story = DeciderScenario(typed_pivot())
    story.succeeds("p", "c-17")
    story.resolves("retry")
    assert story.sent_commands == ["do.p#2"]
    story.succeeds("p", 17)
    assert story.sent_commands == ["do.z#1"]


@pytest.mark.parametrize("reply", [int, str, Any])
def test_a_reply_that_cannot_be_read_is_kept_as_text_and_a_retry_asks_again(reply):
    """Also where the text itself would fit: it is what arrived, not what was meant."""
    story = DeciderScenario(typed_pivot(reply))
    story.apply(
        MalformedReply(
            step="p",
            direction=ACTION,
            attempt=1,
            problem="Not JSON.",
            outcome=Outcome.REJECTED,
            raw_text="{broken",
        )
    )
    assert story.incident.cause == "reply_unreadable"
    assert story.incident.kept_reply == KeptReply(1, "{broken", Outcome.REJECTED, unreadable=True)
    story.resolves("retry")
    assert story.sent_commands == ["do.p#2"]


def test_an_operator_says_that_a_step_was_rejected_and_the_run_turns_back():
    story = DeciderScenario(sequential_saga("a", "b", "p", pivot="p"))
    story.succeeds("a")
    story.malformed_reply("b")
    story.resolves("reject")
    assert story.sent_commands == ["undo.a#1"]
    assert story.progress_of("b").status is StepStatus.REJECTED
    assert story.run.compensation_cause == CompensationCause(
        code=CompensationCode.REJECTED,
        step="b",
        failure=Failure.by_engine(EngineFailureCode.REJECTED, "because"),
        operator="ann",
        reason="because",
    )
    story.compensations_succeed("a")
    assert story.status is Status.COMPENSATED


def test_an_operator_says_that_the_pivot_was_not_done():
    story = DeciderScenario(sequential_saga("a", "p", "z", pivot="p"))
    story.succeeds("a")
    story.attempts_exhausted("p")
    assert story.incident.cause == "step_unknown"
    story.resolves("reject")
    assert story.sent_commands == ["undo.a#1"]


def test_reject_is_refused_where_the_run_can_only_go_on():
    story = DeciderScenario(sequential_saga("a", "p", "z", pivot="p"))
    story.succeeds("a")
    story.succeeds("p")
    story.malformed_reply("z")
    assert "can only go forward" in (story.resolves("reject").refusal or "")
    other = DeciderScenario(sequential_saga("a", "b"))
    other.succeeds("a")
    other.rejects("b")
    other.malformed_reply("a", COMPENSATION)
    assert "undid nothing" in (other.resolves("reject").refusal or "")


def greedy() -> Saga:
    """Steps side by side whose mappings empty what they are given."""
    saga = Saga("greedy", version=1, input=dict)

    def taking(given: dict) -> dict:
        lines = given["lines"]
        taken, given["lines"] = list(lines), []
        lines.clear()
        return {"lines": taken}

    @saga.step(command="do.one", reply=dict, after=[], read_only=True)
    def one(order: dict) -> dict:
        return taking(order)

    @saga.step(command="do.other", after=[], read_only=True)
    def other(order: dict) -> dict:
        return taking(order)

    @saga.step(command="do.left", after=[one], read_only=True)
    def left(one: dict, order: dict) -> dict:
        return taking(one) | {"order": taking(order)}

    @saga.step(command="do.right", after=[one], read_only=True)
    def right(one: dict, order: dict) -> dict:
        return taking(one) | {"order": taking(order)}

    return saga


def test_rule_7_a_mapping_that_changes_what_it_is_given_changes_it_for_no_other():
    story = DeciderScenario(greedy(), {"lines": ["a", "b"]})
    assert (
        story.progress_of("one").payload
        == story.progress_of("other").payload
        == {"lines": ["a", "b"]}
    )
    story.succeeds("one", {"lines": ["c"]})
    expected = {"lines": ["c"], "order": {"lines": ["a", "b"]}}
    assert story.progress_of("left").payload == story.progress_of("right").payload == expected
    assert story.run.input == {"lines": ["a", "b"]}
    assert story.progress_of("one").reply == {"lines": ["c"]}
