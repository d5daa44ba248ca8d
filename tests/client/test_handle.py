"""The state of a run as a caller gets it: complete, or none."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from saga_engine.client.handle import RunResult, run_result_from
from saga_engine.identifiers import uuid7
from saga_engine.protocol.answer import Answer, AnswerOutcome
from saga_engine.protocol.open_incident import OpenIncident
from saga_engine.vocabulary import Direction, Failure, Status

INCIDENT = OpenIncident(
    number=3,
    step="charge",
    direction=Direction.ACTION,
    cause="unroutable",
    since=datetime(2026, 11, 15, tzinfo=UTC),
)
ANSWER = Answer(
    outcome=AnswerOutcome.EXISTING,
    status=Status.COMPENSATED,
    result={"charge": {"paid": True}},
    error=Failure("declined", "The card was declined."),
    saga="place-order",
    version=2,
    key="o-1",
    open_incidents=1,
    incident=INCIDENT,
)


def test_a_result_has_everything_that_the_answer_says_of_the_run():
    run_id = uuid7()
    assert run_result_from(run_id, ANSWER) == RunResult(
        run_id=run_id,
        saga="place-order",
        version=2,
        key="o-1",
        status=Status.COMPENSATED,
        result={"charge": {"paid": True}},
        error=Failure("declined", "The card was declined."),
        open_incidents=1,
        incident=INCIDENT,
    )


@pytest.mark.parametrize(
    "answer",
    [replace(ANSWER, status=None), replace(ANSWER, saga=None), replace(ANSWER, version=None)],
)
def test_an_answer_without_the_state_of_a_run_gives_none(answer):
    assert run_result_from(uuid7(), answer) is None


def test_the_repr_of_a_result_shows_no_payload():
    assert "paid" not in repr(run_result_from(uuid7(), ANSWER))
    assert "card" not in repr(run_result_from(uuid7(), ANSWER))
