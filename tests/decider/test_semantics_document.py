"""What docs/semantics.md says that an operator may do, and what then happens, is so."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from saga_engine import Saga
from saga_engine.decider.run import StepStatus
from saga_engine.vocabulary import Status
from tests.decider.test_operator import needy
from tests.kit.decider_scenario import COMPENSATION, DeciderScenario, add_step, sequential_saga

PAGE = " ".join(
    (Path(__file__).parents[2] / "docs" / "semantics.md").read_text().replace("\n", " ").split()
)
SENTENCES: dict[str, Callable[[], None]] = {}


def says(sentence: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Hold a sentence of the page by the story that follows."""

    def hold(story: Callable[[], None]) -> Callable[[], None]:
        SENTENCES[sentence] = story
        return story

    return hold


def lone_pivot() -> DeciderScenario:
    """A pivot without a compensation that was never answered."""
    story = DeciderScenario(sequential_saga("a", "p", "z", pivot="p"))
    story.succeeds("a")
    story.attempts_exhausted("p")
    return story


def behind_the_pivot() -> DeciderScenario:
    story = DeciderScenario(sequential_saga("p", "z", "end", pivot="p"))
    story.succeeds("p")
    story.attempts_exhausted("z")
    return story


def stuck_compensation() -> DeciderScenario:
    story = DeciderScenario(sequential_saga("a", "b"))
    story.succeeds("a")
    story.rejects("b")
    story.attempts_exhausted("a", COMPENSATION)
    return story


@says(
    "So does a pivot without a compensation that runs out of attempts (`step_unknown`,"
    " `step_failed`): it may have taken effect, and nothing could undo it."
)
def _() -> None:
    story = lone_pivot()
    assert (story.incident.cause, story.status) == ("step_unknown", Status.RUNNING)
    story = DeciderScenario(sequential_saga("p", pivot="p"))
    story.fails("p")
    story.timer_fires()
    story.fails("p")
    assert (story.incident.cause, story.status) == ("step_failed", Status.RUNNING)


@says(
    "It can still be tried again, or an operator finds out what was done and resolves with"
    " `complete` or `reject`."
)
def _() -> None:
    story = lone_pivot()
    story.resolves("retry")
    assert story.sent_commands == ["do.p#3"]
    story = lone_pivot()
    story.resolves("complete")
    assert story.sent_commands == ["do.z#1"]
    story = lone_pivot()
    story.resolves("reject")
    assert story.sent_commands == ["undo.a#1"]


@says(
    "When the run turns back and such a pivot turns out to have taken effect, the incident is"
    " `not_compensatable`: a success that arrives after the pivot was rejected, or a cancel while"
    " its outcome was unknown."
)
def _() -> None:
    story = DeciderScenario(sequential_saga("a", "p", pivot="p"))
    story.succeeds("a")
    story.rejects("p")
    story.succeeds("p")
    assert story.incident.cause == "not_compensatable"
    story = DeciderScenario(sequential_saga("a", "p", pivot="p"))
    story.succeeds("a")
    story.cancels()
    story.attempts_exhausted("p")
    assert story.incident.cause == "not_compensatable"


@says("After the pivot a cancel is refused, with the reason, and the deadline means nothing.")
def _() -> None:
    assert behind_the_pivot().cancels().refusal


@says(
    "`reject` says that the participant did nothing: the run turns back as after a rejection, and"
    " the step is not compensated."
)
def _() -> None:
    story = DeciderScenario(sequential_saga("a", "b"))
    story.succeeds("a")
    story.malformed_reply("b")
    story.resolves("reject")
    assert story.sent_commands == ["undo.a#1"]
    story.compensations_succeed("a")
    assert story.status is Status.COMPENSATED


@says("It is refused for a step behind the pivot and for a compensation.")
def _() -> None:
    for story in (behind_the_pivot(), stuck_compensation()):
        assert story.resolves("reject").refusal
        assert story.incident.number == 1


@says("`skip` goes on without the step, and is refused where a later step needs its reply.")
def _() -> None:
    story = behind_the_pivot()
    story.resolves("skip")
    assert story.sent_commands == ["do.end#1"]
    assert needy().resolves("skip").refusal


@says(
    "`complete` takes a result given by hand; should the run turn back later, the step is"
    " compensated like any other, but a participant with the barrier, which never saw its command,"
    " answers that there is nothing to undo."
)
def _() -> None:
    """The barrier's part: tests/participant/test_barrier.py."""
    story = DeciderScenario(sequential_saga("a", "b"))
    story.malformed_reply("a")
    story.resolves("complete", {"by": "hand"})
    assert story.run.steps["a"].action.status is StepStatus.SUCCEEDED
    story.rejects("b")
    assert story.sent_commands == ["undo.a#1"]


@says("`abandon` closes the run and leaves its effects.")
def _() -> None:
    story = lone_pivot()
    story.resolves("abandon")
    assert (story.status, story.sent_commands) == (Status.ABANDONED, [])


@says("Each takes a name and a reason, which go on record.")
def _() -> None:
    story = behind_the_pivot()
    [event, *_] = story.resolves("skip").events
    assert (getattr(event, "operator", ""), getattr(event, "reason", "")) == ("ann", "because")


@says("A reply that arrives after all resolves the incident by itself.")
def _() -> None:
    for story, step in ((lone_pivot(), "p"), (behind_the_pivot(), "z")):
        story.succeeds(step)
        assert story.run.incidents == {}


@says("`retry` first reads the kept reply with the definition the worker has now.")
def _() -> None:
    story = unfit()
    story.resolves("retry")
    assert story.sent_commands == ["do.a#2"], "it does not fit this definition either"


@says("If the reply fits, the step has succeeded with it and nothing is sent.")
def _() -> None:
    story = unfit()
    story.saga = typed(str)
    story.resolves("retry")
    assert story.run.steps["a"].action.status is StepStatus.SUCCEEDED
    assert story.sent_commands == ["do.b#1"]


@says(
    "Otherwise `retry` sends again with a fresh budget of attempts, and with the same idempotency"
    " key unless the last word was a rejection."
)
def _() -> None:
    story = behind_the_pivot()
    keys = {send.idempotency_key for send in story.sends if send.step == "z"}
    story.resolves("retry")
    assert {send.idempotency_key for send in story.sends if send.step == "z"} == keys
    assert story.sent_commands == ["do.z#3"]
    story.rejects("z")
    story.resolves("retry")
    assert story.sends[-1].idempotency_key not in keys


def typed(reply: type) -> Saga:
    saga = Saga("trip", version=1, input=dict)
    add_step(saga, "a", reply=reply)
    add_step(saga, "b")
    return saga


def unfit() -> DeciderScenario:
    """A step whose reply did not fit its type: it is kept with the incident."""
    story = DeciderScenario(typed(int))
    story.succeeds("a", "seven")
    assert story.incident.cause == "reply_invalid"
    return story


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_sentence_about_operators_is_on_the_page_and_is_so(sentence: str):
    assert sentence in PAGE
    SENTENCES[sentence]()


def test_no_sentence_about_what_an_operator_may_do_is_without_its_story():
    paragraph = PAGE.split("`retry` first reads the kept reply")[1]
    paragraph = "`retry` first reads the kept reply" + paragraph
    found = re.split(r"(?<=[a-z])\. (?=[`A-Z])", paragraph.rstrip("."))
    assert len(found) > 8
    assert [each for each in found if f"{each}." not in SENTENCES] == []
