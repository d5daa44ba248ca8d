"""docs/semantics.md, 7: any mapping function, any type, any reply."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from saga_engine import Saga
from saga_engine.decider.decide import decide
from saga_engine.decider.run import CompensationCause, KeptReply, Progress, StepState, StepStatus
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
    scenario = DeciderScenario(flight(broken))
    scenario.succeeds("book", {"row": 4})
    assert scenario.incident.cause == "mapping_failed"
    assert scenario.incident.step == "pay"
    assert "test_payloads.py:" in scenario.incident.message
    assert " raised ValueError at " in scenario.incident.message
    assert "odd" not in scenario.incident.message
    assert scenario.progress_of("pay").attempts == 0


def test_rule_7_an_operator_retries_a_fixed_mapping():
    broken: list[Exception] = [ValueError("no")]
    scenario = DeciderScenario(flight(broken))
    scenario.succeeds("book", {"row": 4})
    scenario.resolves("retry")
    assert scenario.incident.number == 2
    broken.clear()
    scenario.resolves("retry")
    assert scenario.sent_commands == ["card.charge#1"]


def test_rule_7_a_long_problem_is_cut():
    scenario = DeciderScenario(flight([]))
    scenario.apply(
        MalformedReply(
            step="book", direction=ACTION, attempt=1, problem="\0 \ud800 " + "x" * 10_000
        )
    )
    assert scenario.incident.message.startswith(r"\x00 \ud800 x")
    assert len(scenario.incident.message) == 500


def test_rule_7_a_failed_mapping_needs_no_compensation():
    broken: list[Exception] = [ValueError("no")]
    scenario = DeciderScenario(flight(broken))
    scenario.succeeds("book", {"row": 4})
    broken.clear()
    scenario.cancels()
    assert scenario.progress_of("pay").status is StepStatus.FAILED
    assert scenario.sent_commands == ["seat.release#1"]


def test_rule_7_the_mapping_of_a_compensation_that_raises_opens_an_incident_too():
    broken: list[Exception] = []
    scenario = DeciderScenario(flight(broken))
    scenario.succeeds("book", {"row": 4})
    broken.append(RuntimeError("no"))
    scenario.rejects("pay")
    assert (scenario.incident.step, scenario.incident.direction) == ("book", COMPENSATION)
    broken.clear()
    scenario.resolves("retry")
    assert scenario.sends[-1].payload == {"row": 4}


def test_a_compensation_gets_none_for_a_reply_that_never_came():
    scenario = DeciderScenario(flight([]))
    scenario.attempts_exhausted("book")
    assert scenario.sends[-1].payload == {"row": None}


@pytest.mark.parametrize("payload", ["text \0", "\ud800", 2**64, object(), {1, 2}])
def test_rule_7_a_payload_that_cannot_be_sent_opens_an_incident(payload):
    saga = Saga("odd", version=1, input=dict)

    @saga.step(command="do.it", read_only=True)
    def odd(order: dict) -> list:
        wrong: list = [payload] if not isinstance(payload, set) else payload  # type: ignore[assignment]  # the mistake under test
        return wrong

    scenario = DeciderScenario(saga)
    assert scenario.incident.cause == "mapping_failed"


def test_rule_7_a_reply_that_does_not_validate_opens_an_incident():
    scenario = DeciderScenario(flight([]))
    scenario.succeeds("book", {"row": "secret"})
    assert scenario.incident.cause == "reply_invalid"
    assert scenario.incident.message == "The reply does not fit Seat (row: int_parsing)."
    assert scenario.status is Status.RUNNING


def test_rule_7_a_validator_that_raises_opens_an_incident_without_the_value():
    scenario = DeciderScenario(flight([]))
    scenario.succeeds("book", {"row": 13})
    assert scenario.incident.message == "The reply cannot be read as Seat (LookupError)."


def test_rule_7_the_same_invalid_reply_again_is_a_duplicate():
    scenario = DeciderScenario(flight([]))
    scenario.succeeds("book", {})
    assert scenario.succeeds("book", {}).ignored_reason == "duplicate"


def test_rule_7_a_valid_reply_after_an_invalid_one_closes_the_incident():
    scenario = DeciderScenario(flight([]))
    scenario.succeeds("book", {})
    scenario.succeeds("book", {"row": 2})
    assert scenario.run.incidents == {}
    assert scenario.sent_commands == ["card.charge#1"]


def test_rule_7_a_step_with_an_invalid_reply_is_compensated():
    scenario = DeciderScenario(flight([]))
    scenario.succeeds("book", {})
    scenario.cancels()
    assert scenario.sends[-1].name == "seat.release"
    assert scenario.sends[-1].payload == {"row": None}


def test_rule_7_a_malformed_reply_opens_an_incident():
    scenario = DeciderScenario(flight([]))
    scenario.malformed_reply("book")
    assert scenario.incident.cause == "reply_unreadable"
    assert scenario.malformed_reply("book").ignored_reason == "late"
    other = DeciderScenario(flight([]))
    other.timer_fires()
    other.malformed_reply("book")
    assert other.incident.cause == "reply_unreadable"
    assert other.progress_of("book").due_at is None


def test_a_failure_of_a_blocked_step_is_late():
    scenario = DeciderScenario(flight([]))
    scenario.malformed_reply("book")
    assert scenario.rejects("book").ignored_reason == "late"
    assert scenario.fails("book").ignored_reason == "late"


def fixed(reply: type) -> Saga:
    """Two deployments of one saga; in both `b` needs the reply of `a`, of the given type."""
    saga = Saga("fixed", version=1, input=dict)
    add_step(saga, "a", reply=reply)

    def b(a: Any) -> dict:
        return {"a": a.row}

    b.__annotations__["a"] = reply
    saga.step(command="do.b", read_only=True)(b)
    return saga


def test_a_stored_reply_that_does_not_fit_a_new_type_blocks_the_next_step():
    scenario = DeciderScenario(fixed(dict))
    scenario.succeeds("a", {"row": 13})
    assert "AttributeError" in scenario.incident.message
    scenario.saga = fixed(Seat)
    scenario.resolves("retry")
    assert "cannot be read as Seat" in scenario.incident.message


def test_a_retry_sends_the_same_bytes_and_calls_no_mapping():
    broken: list[Exception] = []
    scenario = DeciderScenario(flight(broken))
    scenario.succeeds("book", {"row": 4})
    broken.append(ValueError("no"))
    scenario.fails("pay")
    scenario.timer_fires()
    assert scenario.sent_commands == ["card.charge#2"]
    assert scenario.sends[-1].payload == {"row": 4}


def test_the_reply_of_a_skipped_step_is_none_where_none_is_allowed():
    saga = Saga("maybe", version=1, input=dict)
    add_step(saga, "a", reply=Seat)

    @saga.step(command="do.b", read_only=True)
    def b(a: Seat | None) -> dict:
        return {"a": a is None}

    scenario = DeciderScenario(saga)
    scenario.malformed_reply("a")
    scenario.resolves("skip")
    assert scenario.sends[-1].payload == {"a": True}


def test_a_missing_reply_blocks_the_step_that_needs_it():
    scenario = DeciderScenario(sequential_saga("a", "b"))
    scenario.malformed_reply("a")
    scenario.resolves("skip")
    scenario.malformed_reply("b")
    scenario.saga = fixed(Seat)
    assert scenario.progress_of("b").payload is not None
    scenario.state = replace(
        scenario.run,
        steps={**scenario.run.steps, "b": StepState(Progress(status=StepStatus.BLOCKED))},
    )
    decision = decide(
        scenario.saga,
        scenario.run,
        ResolveIncident(
            incident_number=2, resolution=Resolution.RETRY, operator="ann", reason="why"
        ),
        scenario.now,
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


def test_an_invalid_reply_is_kept_with_its_incident():
    scenario = DeciderScenario(typed_pivot())
    scenario.succeeds("p", {"charge": "c-17"})
    assert scenario.incident.cause == "reply_invalid"
    assert scenario.incident.kept_reply == KeptReply(1, {"charge": "c-17"}, Outcome.SUCCEEDED)
    assert "c-17" not in scenario.incident.message


def test_the_invalid_reply_of_a_pivot_that_supersedes_a_stop_is_kept_for_the_fixed_definition():
    scenario = DeciderScenario(typed_pivot_that_z_reads(int))
    scenario.cancels()
    scenario.succeeds("p", {"charge": "c-17"})
    assert scenario.run.stop_cause is None
    assert (scenario.incident.step, scenario.incident.cause) == ("z", "mapping_failed")

    scenario.saga = typed_pivot_that_z_reads(dict)
    scenario.resolves("retry")
    assert scenario.sends[-1].payload == {"of": {"charge": "c-17"}}


def typed_pivot_that_z_reads(reply: Any) -> Saga:
    saga = Saga("typed", version=1, input=dict)
    add_step(saga, "p", compensated=False, pivot=True, reply=reply)

    def z(p: reply) -> dict:
        return {"of": p}

    saga.step(command="do.z")(z)
    return saga


def test_a_retry_reads_the_kept_reply_with_the_fixed_definition():
    scenario = DeciderScenario(typed_pivot())
    scenario.succeeds("p", {"charge": "c-17"})
    fixed = Saga("typed", version=1, input=dict)
    add_step(fixed, "p", compensated=False, pivot=True, reply=dict)
    add_step(fixed, "z", compensated=False, reply=int)
    check(fixed)
    scenario.saga = fixed
    scenario.resolves("retry")
    assert scenario.sent_commands == ["do.z#1"]
    assert (scenario.progress_of("p").status, scenario.progress_of("p").attempts) == (
        StepStatus.SUCCEEDED,
        1,
    )
    assert scenario.progress_of("p").reply == {"charge": "c-17"}
    assert scenario.run.incidents == {}


def test_a_retry_sends_again_if_the_kept_reply_does_not_fit():
    scenario = DeciderScenario(typed_pivot())
    scenario.succeeds("p", "c-17")
    scenario.resolves("retry")
    assert scenario.sent_commands == ["do.p#2"]
    scenario.succeeds("p", 17)
    assert scenario.sent_commands == ["do.z#1"]


@pytest.mark.parametrize("reply", [int, str, Any])
def test_a_malformed_reply_is_kept_as_text_and_a_retry_sends_again(reply):
    """Also where the text itself would fit: it is what arrived, not what was meant."""
    scenario = DeciderScenario(typed_pivot(reply))
    scenario.apply(
        MalformedReply(
            step="p",
            direction=ACTION,
            attempt=1,
            problem="Not JSON.",
            outcome=Outcome.REJECTED,
            raw_text="{broken",
        )
    )
    assert scenario.incident.cause == "reply_unreadable"
    assert scenario.incident.kept_reply == KeptReply(
        1, "{broken", Outcome.REJECTED, unreadable=True
    )
    scenario.resolves("retry")
    assert scenario.sent_commands == ["do.p#2"]


def test_a_run_compensates_when_an_operator_rejects_a_step():
    scenario = DeciderScenario(sequential_saga("a", "b", "p", pivot="p"))
    scenario.succeeds("a")
    scenario.malformed_reply("b")
    scenario.resolves("reject")
    assert scenario.sent_commands == ["undo.a#1"]
    assert scenario.progress_of("b").status is StepStatus.REJECTED
    assert scenario.run.compensation_cause == CompensationCause(
        code=CompensationCode.REJECTED,
        step="b",
        failure=Failure.by_engine(EngineFailureCode.REJECTED, "because"),
        operator="ann",
        reason="because",
    )
    scenario.compensations_succeed("a")
    assert scenario.status is Status.COMPENSATED


def test_a_run_compensates_when_an_operator_rejects_the_pivot():
    scenario = DeciderScenario(sequential_saga("a", "p", "z", pivot="p"))
    scenario.succeeds("a")
    scenario.attempts_exhausted("p")
    assert scenario.incident.cause == "step_unknown"
    scenario.resolves("reject")
    assert scenario.sent_commands == ["undo.a#1"]


def test_reject_is_refused_where_the_run_can_only_go_forward():
    scenario = DeciderScenario(sequential_saga("a", "p", "z", pivot="p"))
    scenario.succeeds("a")
    scenario.succeeds("p")
    scenario.malformed_reply("z")
    assert "can only go forward" in (scenario.resolves("reject").refusal or "")
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


def test_rule_7_a_mapping_that_changes_its_arguments_affects_no_other():
    scenario = DeciderScenario(greedy(), {"lines": ["a", "b"]})
    assert (
        scenario.progress_of("one").payload
        == scenario.progress_of("other").payload
        == {"lines": ["a", "b"]}
    )
    scenario.succeeds("one", {"lines": ["c"]})
    expected = {"lines": ["c"], "order": {"lines": ["a", "b"]}}
    assert scenario.progress_of("left").payload == scenario.progress_of("right").payload == expected
    assert scenario.run.input == {"lines": ["a", "b"]}
    assert scenario.progress_of("one").reply == {"lines": ["c"]}
