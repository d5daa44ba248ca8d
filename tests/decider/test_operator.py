"""What an operator can do about an incident, and when not."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from saga_engine import Saga, decider
from saga_engine.decider.events import IncidentOpened, IncidentResolved, RunAbandoned
from saga_engine.decider.run import StepStatus
from saga_engine.vocabulary import IncidentCause, Resolution, Status
from tests.kit.decider_scenario import (
    COMPENSATION,
    DeciderScenario,
    add_step,
    branching_saga,
    sequential_saga,
)


def blocked() -> DeciderScenario:
    """`p` is passed and `z` blocked: its attempts ran out."""
    story = DeciderScenario(sequential_saga("p", "z", "end", pivot="p"))
    story.succeeds("p")
    story.attempts_exhausted("z")
    return story


def test_retry_sends_again_with_the_same_idempotency_key_and_a_fresh_budget_of_attempts():
    story = blocked()
    story.resolves("retry")
    assert story.sent_commands == ["do.z#3"]
    assert len({send.idempotency_key for send in story.sends if send.step == "z"}) == 1
    assert len({str(send.payload) for send in story.sends if send.step == "z"}) == 1
    story.attempts_exhausted("z")
    assert story.progress_of("z").attempts == 4
    assert story.incident.number == 2


def test_retry_after_a_rejection_is_a_new_round_with_a_new_idempotency_key():
    story = DeciderScenario(sequential_saga("p", "z", pivot="p"))
    story.succeeds("p")
    story.rejects("z")
    story.resolves("retry")
    assert [send.idempotency_key for send in story.sends if send.step == "z"] == [
        "r-1/z/action/1",
        "r-1/z/action/2",
    ]
    story.fails("z")
    story.timer_fires()
    assert story.sends[-1].idempotency_key == "r-1/z/action/2"


def test_retry_of_a_rejected_compensation_is_a_new_round_too():
    story = DeciderScenario(sequential_saga("a"))
    story.attempts_exhausted("a")
    story.rejects("a", direction=COMPENSATION)
    story.resolves("retry")
    assert story.sends[-1].idempotency_key == "r-1/a/compensation/2"
    story.compensations_succeed("a")
    assert story.status is Status.COMPENSATED


def test_skip_lets_the_run_go_on_without_the_step():
    story = blocked()
    story.resolves("skip")
    assert story.progress_of("z").status is StepStatus.SKIPPED
    assert story.sent_commands == ["do.end#1"]
    story.succeeds("end")
    assert story.status is Status.COMPLETED
    assert story.run.result == {"p": None, "z": None, "end": None}


def test_skip_of_a_step_that_may_be_done_is_compensated_when_the_run_turns_back():
    story = DeciderScenario(sequential_saga("a", "b"))
    story.malformed_reply("a")
    story.resolves("skip")
    story.rejects("b")
    assert story.sent_commands == ["undo.a#1"]


def test_skip_of_a_compensation_takes_it_for_undone():
    story = DeciderScenario(sequential_saga("a", "b"))
    story.succeeds("a")
    story.attempts_exhausted("b")
    story.attempts_exhausted("b", COMPENSATION)
    story.resolves("skip")
    assert story.sent_commands == ["undo.a#1"]


class Ticket(BaseModel):
    number: int


def needy() -> DeciderScenario:
    saga = Saga("needy", version=1, input=dict)
    add_step(saga, "print_it", reply=Ticket)

    @saga.step(command="show.it", read_only=True)
    def show(print_it: Ticket) -> dict:
        return {"number": print_it.number}

    story = DeciderScenario(saga)
    story.malformed_reply("print_it")
    return story


def test_skip_is_refused_when_a_later_step_needs_the_reply():
    story = needy()
    refused = story.resolves("skip").refusal
    assert refused == (
        "Step show needs the reply of print_it; resolve with complete and give that reply."
    )
    assert story.incident.number == 1


def test_complete_gives_the_reply_by_hand():
    story = needy()
    story.resolves("complete", {"number": 5})
    assert story.sends[-1].payload == {"number": 5}


def test_complete_is_refused_when_the_result_does_not_fit():
    refused = needy().resolves("complete", {"number": "five"}).refusal
    assert refused == "The result does not fit Ticket (number: int_parsing)."


def test_complete_of_a_compensation_needs_no_result():
    story = DeciderScenario(sequential_saga("a"))
    story.attempts_exhausted("a")
    story.attempts_exhausted("a", COMPENSATION)
    story.resolves("complete")
    assert story.status is Status.COMPENSATED


def test_abandon_closes_the_run_and_leaves_its_effects():
    story = blocked()
    story.resolves("abandon")
    assert story.status is Status.ABANDONED
    assert story.run.finished_at == story.now
    assert isinstance(story.last_decision.events[-1], RunAbandoned)
    assert story.sent_commands == []


def test_abandon_resolves_every_open_incident_on_record():
    story = DeciderScenario(branching_saga())
    story.succeeds("root")
    story.malformed_reply("left")
    story.malformed_reply("right")
    story.resolves("abandon", number=2)
    assert story.run.incidents == {}
    resolved = [
        event for event in story.last_decision.events if isinstance(event, IncidentResolved)
    ]
    assert [(event.number, event.resolution, event.operator) for event in resolved] == [
        (1, Resolution.ABANDON, "ann"),
        (2, Resolution.ABANDON, "ann"),
    ]


def half_abandoned() -> DeciderScenario:
    """Abandoned while `right` was in flight."""
    story = DeciderScenario(branching_saga())
    story.succeeds("root")
    story.malformed_reply("left")
    story.resolves("abandon")
    return story


@pytest.mark.parametrize("what", ["fails", "rejects", "malformed_reply", "unroutable"])
def test_what_fails_after_the_run_was_abandoned_is_late(what):
    story = half_abandoned()
    assert getattr(story, what)("right").ignored_reason == "late"
    assert not any(isinstance(event, IncidentOpened) for event in story.last_decision.events)


@pytest.mark.parametrize("step", ["left", "right"])
def test_an_effect_that_is_proven_after_the_run_was_abandoned_is_on_record(step):
    story = half_abandoned()
    story.succeeds(step)
    assert story.progress_of(step).status is StepStatus.SUCCEEDED
    assert story.status is Status.ABANDONED
    assert story.sent_commands == []
    assert story.succeeds(step).ignored_reason == "duplicate"


def test_an_invalid_reply_after_the_run_was_abandoned_opens_no_incident():
    story = needy()
    story.resolves("abandon")
    story.succeeds("print_it", {"number": "five"})
    assert story.run.incidents == {}


def test_a_late_success_after_the_run_was_abandoned_is_on_record_too():
    story = DeciderScenario(branching_saga())
    story.succeeds("root")
    story.rejects("left")
    story.rejects("right")
    story.rejects("root", direction=COMPENSATION)
    story.resolves("abandon")
    story.succeeds("left")
    assert story.status is Status.ABANDONED
    assert story.progress_of("left").status is StepStatus.SUCCEEDED


@pytest.mark.parametrize("resolution", list(Resolution))
def test_every_resolution_is_refused_without_that_incident(resolution):
    story = DeciderScenario(sequential_saga("a"))
    assert story.resolves(resolution).refusal == "The run has no open incident 1."
    story = blocked()
    assert story.resolves(resolution, number=9).refusal == "The run has no open incident 9."


def test_resolving_twice_is_refused_the_second_time():
    story = blocked()
    story.resolves("retry")
    assert story.resolves("retry", number=1).refusal


def test_who_resolved_it_and_why_is_on_record():
    story = blocked()
    story.resolves("skip")
    (event, *_) = story.last_decision.events
    assert isinstance(event, IncidentResolved)
    assert (event.operator, event.reason) == ("ann", "because")


def test_retry_is_refused_where_there_is_nothing_to_send():
    story = DeciderScenario(sequential_saga("p", pivot="p"))
    story.rejects("p")
    story.succeeds("p")
    assert story.resolves("retry").refusal == (
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
