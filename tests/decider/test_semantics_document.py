"""What docs/semantics.md says about operators is true."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from saga_engine import Saga
from saga_engine.decider.run import StepStatus
from saga_engine.vocabulary import Status
from tests.kit.decider_scenario import COMPENSATION, DeciderScenario, add_step, sequential_saga
from tests.kit.unread_reply import unread_reply_scenario

PAGE = " ".join(
    (Path(__file__).parents[2] / "docs" / "semantics.md").read_text().replace("\n", " ").split()
)
SENTENCES: dict[str, Callable[[], None]] = {}


def says(sentence: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Check a sentence of the document with the scenario that follows."""

    def register(scenario: Callable[[], None]) -> Callable[[], None]:
        SENTENCES[sentence] = scenario
        return scenario

    return register


def final_pivot() -> DeciderScenario:
    """A pivot without a compensation that never got a reply."""
    scenario = DeciderScenario(sequential_saga("a", "p", "z", pivot="p"))
    scenario.succeeds("a")
    scenario.attempts_exhausted("p")
    return scenario


def after_the_pivot() -> DeciderScenario:
    scenario = DeciderScenario(sequential_saga("p", "z", "end", pivot="p"))
    scenario.succeeds("p")
    scenario.attempts_exhausted("z")
    return scenario


def stuck_compensation() -> DeciderScenario:
    scenario = DeciderScenario(sequential_saga("a", "b"))
    scenario.succeeds("a")
    scenario.rejects("b")
    scenario.attempts_exhausted("a", COMPENSATION)
    return scenario


@says(
    "A pivot without a compensation runs out of attempts (`step_unknown`, `step_failed`). It may"
    " have taken effect, and nothing could undo it, so the run stays `running`."
)
def _() -> None:
    scenario = final_pivot()
    assert (scenario.incident.cause, scenario.status) == ("step_unknown", Status.RUNNING)
    scenario = DeciderScenario(sequential_saga("p", pivot="p"))
    scenario.fails("p")
    scenario.timer_fires()
    scenario.fails("p")
    assert (scenario.incident.cause, scenario.status) == ("step_failed", Status.RUNNING)


@says(
    "The operator tries again, or finds out what was done and resolves with `complete` or `reject`."
)
def _() -> None:
    scenario = final_pivot()
    scenario.resolves("retry")
    assert scenario.sent_commands == ["do.p#3"]
    scenario = final_pivot()
    scenario.resolves("complete")
    assert scenario.sent_commands == ["do.z#1"]
    scenario = final_pivot()
    scenario.resolves("reject")
    assert scenario.sent_commands == ["undo.a#1"]


@says(
    "The run compensates, and such a pivot may have taken effect (`not_compensatable`). Its success"
    " arrived after its rejection, or the run was cancelled while the outcome was unknown."
)
def _() -> None:
    scenario = DeciderScenario(sequential_saga("a", "p", pivot="p"))
    scenario.succeeds("a")
    scenario.rejects("p")
    scenario.succeeds("p")
    assert scenario.incident.cause == "not_compensatable"
    scenario = DeciderScenario(sequential_saga("a", "p", pivot="p"))
    scenario.succeeds("a")
    scenario.cancels()
    scenario.attempts_exhausted("p")
    assert scenario.incident.cause == "not_compensatable"


@says("After the pivot a cancel is refused, with the reason, and the deadline is ignored.")
def _() -> None:
    assert after_the_pivot().cancels().refusal


@says(
    "`reject` says that the participant did nothing: the run compensates as after a rejection, and"
    " the step is not compensated."
)
def _() -> None:
    scenario = DeciderScenario(sequential_saga("a", "b"))
    scenario.succeeds("a")
    scenario.malformed_reply("b")
    scenario.resolves("reject")
    assert scenario.sent_commands == ["undo.a#1"]
    scenario.compensations_succeed("a")
    assert scenario.status is Status.COMPENSATED


@says("It is refused for a step after the pivot and for a compensation.")
def _() -> None:
    for scenario in (after_the_pivot(), stuck_compensation()):
        assert scenario.resolves("reject").refusal
        assert scenario.incident.number == 1


@says("`skip` goes on without the step, and is refused if a later step needs its reply.")
def _() -> None:
    scenario = after_the_pivot()
    scenario.resolves("skip")
    assert scenario.sent_commands == ["do.end#1"]
    assert unread_reply_scenario().resolves("skip").refusal


@says(
    "`complete` takes a result from the operator; if the run compensates later, the step is"
    " compensated like any other, but a participant with the barrier, which never saw its command,"
    " replies that there is nothing to undo."
)
def _() -> None:
    """The barrier's part: tests/participant/test_barrier.py."""
    scenario = DeciderScenario(sequential_saga("a", "b"))
    scenario.malformed_reply("a")
    scenario.resolves("complete", {"by": "hand"})
    assert scenario.run.steps["a"].action.status is StepStatus.SUCCEEDED
    scenario.rejects("b")
    assert scenario.sent_commands == ["undo.a#1"]


@says("`abandon` closes the run and leaves its effects.")
def _() -> None:
    scenario = final_pivot()
    scenario.resolves("abandon")
    assert (scenario.status, scenario.sent_commands) == (Status.ABANDONED, [])


@says("Each takes a name and a reason, which are recorded.")
def _() -> None:
    scenario = after_the_pivot()
    [event, *_] = scenario.resolves("skip").events
    assert (getattr(event, "operator", ""), getattr(event, "reason", "")) == ("ann", "because")


@says("A success that arrives later resolves the incident automatically.")
def _() -> None:
    for scenario, step in ((final_pivot(), "p"), (after_the_pivot(), "z")):
        scenario.succeeds(step)
        assert scenario.run.incidents == {}


@says("`retry` first reads the kept reply with the definition the worker has now.")
def _() -> None:
    scenario = invalid_reply()
    scenario.resolves("retry")
    assert scenario.sent_commands == ["do.a#2"], "it does not fit this definition either"


@says("If the reply fits, the step has succeeded with it and nothing is sent.")
def _() -> None:
    scenario = invalid_reply()
    scenario.saga = typed(str)
    scenario.resolves("retry")
    assert scenario.run.steps["a"].action.status is StepStatus.SUCCEEDED
    assert scenario.sent_commands == ["do.b#1"]


@says(
    "Otherwise `retry` sends again with a new budget of attempts, and with the same idempotency"
    " key unless the last reply was a rejection."
)
def _() -> None:
    scenario = after_the_pivot()
    keys = {send.idempotency_key for send in scenario.sends if send.step == "z"}
    scenario.resolves("retry")
    assert {send.idempotency_key for send in scenario.sends if send.step == "z"} == keys
    assert scenario.sent_commands == ["do.z#3"]
    scenario.rejects("z")
    scenario.resolves("retry")
    assert scenario.sends[-1].idempotency_key not in keys


def typed(reply: type) -> Saga:
    saga = Saga("trip", version=1, input=dict)
    add_step(saga, "a", reply=reply)
    add_step(saga, "b")
    return saga


def invalid_reply() -> DeciderScenario:
    """A step whose reply did not fit its type, so that it is kept with the incident."""
    scenario = DeciderScenario(typed(int))
    scenario.succeeds("a", "seven")
    assert scenario.incident.cause == "reply_invalid"
    return scenario


@pytest.mark.parametrize("sentence", SENTENCES)
def test_each_sentence_about_operators_is_in_the_document_and_true(sentence: str):
    assert sentence in PAGE
    SENTENCES[sentence]()


def test_each_sentence_about_operators_has_a_scenario():
    paragraph = PAGE.split("`retry` first reads the kept reply")[1]
    paragraph = "`retry` first reads the kept reply" + paragraph
    found = re.split(r"(?<=[a-z])\. (?=[`A-Z])", paragraph.rstrip("."))
    assert len(found) > 8
    assert [each for each in found if f"{each}." not in SENTENCES] == []
