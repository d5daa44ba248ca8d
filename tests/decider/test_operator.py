"""What an operator can do about an incident, and what is refused."""

import re
from pathlib import Path

import pytest

from saga_engine import decider
from saga_engine.decider.events import IncidentOpened, IncidentResolved, RunAbandoned
from saga_engine.decider.run import StepStatus
from saga_engine.vocabulary import IncidentCause, Resolution, Status
from tests.kit.decider_scenario import (
    COMPENSATION,
    DeciderScenario,
    branching_saga,
    sequential_saga,
)
from tests.kit.unread_reply import unread_reply_scenario


def blocked() -> DeciderScenario:
    """`p` is passed and `z` blocked: its attempts ran out."""
    scenario = DeciderScenario(sequential_saga("p", "z", "end", pivot="p"))
    scenario.succeeds("p")
    scenario.attempts_exhausted("z")
    return scenario


def test_retry_sends_again_with_the_same_idempotency_key_and_a_fresh_budget_of_attempts():
    scenario = blocked()
    scenario.resolves("retry")
    assert scenario.sent_commands == ["do.z#3"]
    assert len({send.idempotency_key for send in scenario.sends if send.step == "z"}) == 1
    assert len({str(send.payload) for send in scenario.sends if send.step == "z"}) == 1
    scenario.attempts_exhausted("z")
    assert scenario.progress_of("z").attempts == 4
    assert scenario.incident.number == 2


def test_retry_after_a_rejection_is_a_new_round_with_a_new_idempotency_key():
    scenario = DeciderScenario(sequential_saga("p", "z", pivot="p"))
    scenario.succeeds("p")
    scenario.rejects("z")
    scenario.resolves("retry")
    assert [send.idempotency_key for send in scenario.sends if send.step == "z"] == [
        "r-1/z/action/1",
        "r-1/z/action/2",
    ]
    scenario.fails("z")
    scenario.timer_fires()
    assert scenario.sends[-1].idempotency_key == "r-1/z/action/2"


def test_retry_of_a_rejected_compensation_is_a_new_round_too():
    scenario = DeciderScenario(sequential_saga("a"))
    scenario.attempts_exhausted("a")
    scenario.rejects("a", direction=COMPENSATION)
    scenario.resolves("retry")
    assert scenario.sends[-1].idempotency_key == "r-1/a/compensation/2"
    scenario.compensations_succeed("a")
    assert scenario.status is Status.COMPENSATED


def test_skip_lets_the_run_go_on_without_the_step():
    scenario = blocked()
    scenario.resolves("skip")
    assert scenario.progress_of("z").status is StepStatus.SKIPPED
    assert scenario.sent_commands == ["do.end#1"]
    scenario.succeeds("end")
    assert scenario.status is Status.COMPLETED
    assert scenario.run.result == {"p": None, "z": None, "end": None}


def test_a_skipped_step_that_may_be_done_is_compensated():
    scenario = DeciderScenario(sequential_saga("a", "b"))
    scenario.malformed_reply("a")
    scenario.resolves("skip")
    scenario.rejects("b")
    assert scenario.sent_commands == ["undo.a#1"]


def test_a_skipped_compensation_counts_as_done():
    scenario = DeciderScenario(sequential_saga("a", "b"))
    scenario.succeeds("a")
    scenario.attempts_exhausted("b")
    scenario.attempts_exhausted("b", COMPENSATION)
    scenario.resolves("skip")
    assert scenario.sent_commands == ["undo.a#1"]


def test_skip_is_refused_when_a_later_step_needs_the_reply():
    scenario = unread_reply_scenario()
    refused = scenario.resolves("skip").refusal
    assert refused == (
        "Step show needs the reply of print_it; resolve with complete and give that reply."
    )
    assert scenario.incident.number == 1


def test_complete_takes_the_reply_from_the_operator():
    scenario = unread_reply_scenario()
    scenario.resolves("complete", {"number": 5})
    assert scenario.sends[-1].payload == {"number": 5}


def test_complete_is_refused_when_the_result_does_not_fit():
    refused = unread_reply_scenario().resolves("complete", {"number": "five"}).refusal
    assert refused == "The result does not fit Ticket (number: int_parsing)."


def test_complete_of_a_compensation_needs_no_result():
    scenario = DeciderScenario(sequential_saga("a"))
    scenario.attempts_exhausted("a")
    scenario.attempts_exhausted("a", COMPENSATION)
    scenario.resolves("complete")
    assert scenario.status is Status.COMPENSATED


def test_abandon_closes_the_run_and_leaves_its_effects():
    scenario = blocked()
    scenario.resolves("abandon")
    assert scenario.status is Status.ABANDONED
    assert scenario.run.finished_at == scenario.now
    assert isinstance(scenario.last_decision.events[-1], RunAbandoned)
    assert scenario.sent_commands == []


def test_abandon_resolves_every_open_incident_on_record():
    scenario = DeciderScenario(branching_saga())
    scenario.succeeds("root")
    scenario.malformed_reply("left")
    scenario.malformed_reply("right")
    scenario.resolves("abandon", number=2)
    assert scenario.run.incidents == {}
    resolved = [
        event for event in scenario.last_decision.events if isinstance(event, IncidentResolved)
    ]
    assert [(event.number, event.resolution, event.operator) for event in resolved] == [
        (1, Resolution.ABANDON, "ann"),
        (2, Resolution.ABANDON, "ann"),
    ]


def half_abandoned() -> DeciderScenario:
    """Abandoned while `right` was in flight."""
    scenario = DeciderScenario(branching_saga())
    scenario.succeeds("root")
    scenario.malformed_reply("left")
    scenario.resolves("abandon")
    return scenario


@pytest.mark.parametrize("what", ["fails", "rejects", "malformed_reply", "unroutable"])
def test_a_failure_after_the_run_was_abandoned_is_late(what):
    scenario = half_abandoned()
    assert getattr(scenario, what)("right").ignored_reason == "late"
    assert not any(isinstance(event, IncidentOpened) for event in scenario.last_decision.events)


@pytest.mark.parametrize("step", ["left", "right"])
def test_a_success_after_the_run_was_abandoned_is_recorded(step):
    scenario = half_abandoned()
    scenario.succeeds(step)
    assert scenario.progress_of(step).status is StepStatus.SUCCEEDED
    assert scenario.status is Status.ABANDONED
    assert scenario.sent_commands == []
    assert scenario.succeeds(step).ignored_reason == "duplicate"


def test_an_invalid_reply_after_the_run_was_abandoned_opens_no_incident():
    scenario = unread_reply_scenario()
    scenario.resolves("abandon")
    scenario.succeeds("print_it", {"number": "five"})
    assert scenario.run.incidents == {}


def test_a_late_success_after_the_run_was_abandoned_is_recorded():
    scenario = DeciderScenario(branching_saga())
    scenario.succeeds("root")
    scenario.rejects("left")
    scenario.rejects("right")
    scenario.rejects("root", direction=COMPENSATION)
    scenario.resolves("abandon")
    scenario.succeeds("left")
    assert scenario.status is Status.ABANDONED
    assert scenario.progress_of("left").status is StepStatus.SUCCEEDED


@pytest.mark.parametrize("resolution", list(Resolution))
def test_every_resolution_is_refused_without_that_incident(resolution):
    scenario = DeciderScenario(sequential_saga("a"))
    assert scenario.resolves(resolution).refusal == "The run has no open incident 1."
    scenario = blocked()
    assert scenario.resolves(resolution, number=9).refusal == "The run has no open incident 9."


def test_resolving_twice_is_refused_the_second_time():
    scenario = blocked()
    scenario.resolves("retry")
    assert scenario.resolves("retry", number=1).refusal


def test_the_operator_and_the_reason_are_recorded():
    scenario = blocked()
    scenario.resolves("skip")
    (event, *_) = scenario.last_decision.events
    assert isinstance(event, IncidentResolved)
    assert (event.operator, event.reason) == ("ann", "because")


def test_retry_is_refused_where_there_is_nothing_to_send():
    scenario = DeciderScenario(sequential_saga("p", pivot="p"))
    scenario.rejects("p")
    scenario.succeeds("p")
    assert scenario.resolves("retry").refusal == (
        "Step p declares no compensation to retry;"
        " undo it by hand and resolve with complete, or skip."
    )


def test_the_document_lists_each_cause_of_an_incident():
    document = (Path(__file__).parents[2] / "docs" / "semantics.md").read_text()
    section = document.partition("## Incidents")[2]
    listed = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)))
    assert sorted(listed) == sorted(IncidentCause)


@pytest.mark.parametrize("cause", IncidentCause)
def test_each_cause_of_an_incident_is_used(cause):
    package = Path(decider.__file__).parents[1]
    sources = [*(package / "decider").glob("*.py"), *(package / "worker").glob("*.py")]
    assert any(f"IncidentCause.{cause.name}" in each.read_text() for each in sources)
