"""The stored names and data of events, which never change."""

from datetime import UTC, datetime
from typing import get_args

import orjson
import pytest

from saga_engine.decider.events import (
    AttemptFailed,
    AttemptStarted,
    Event,
    IncidentOpened,
    IncidentResolved,
    RunAbandoned,
    RunCompensated,
    RunCompensating,
    RunCompleted,
    RunStarted,
    RunStopping,
    StepCompleted,
    StepGivenUp,
    StepRejected,
    StepSkipped,
    StepSucceeded,
    StopSuperseded,
)
from saga_engine.decider.run import CompensationCause, KeptReply
from saga_engine.store.event_data import EVENT_TYPES, deserialize_event, serialize_event
from saga_engine.vocabulary import (
    CompensationCode,
    Direction,
    Failure,
    IncidentCause,
    Outcome,
    Resolution,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
A, C = Direction.ACTION, Direction.COMPENSATION
NO = Failure("no", "No.", {"why": [1]})
EXAMPLES: list[Event] = [
    RunStarted(
        run_id="r",
        saga="s",
        version=1,
        fingerprint="f",
        key="k",
        input={"x": 1},
        steps=("a", "b"),
        started_at=NOON,
        deadline=NOON,
    ),
    RunStarted(
        run_id="r",
        saga="s",
        version=1,
        fingerprint="f",
        key=None,
        input=None,
        steps=(),
        started_at=NOON,
    ),
    AttemptStarted(
        step="a",
        direction=A,
        attempt=1,
        round=1,
        command="do.a",
        due_at=NOON,
        payload={"x": [None]},
    ),
    AttemptStarted(step="a", direction=C, attempt=2, round=1, command="undo.a", due_at=NOON),
    AttemptFailed(
        step="a", direction=A, attempt=1, outcome=Outcome.FAILED, failure=NO, retry_at=NOON
    ),
    AttemptFailed(
        step="a", direction=A, attempt=1, outcome=Outcome.UNKNOWN, failure=NO, never_delivered=True
    ),
    StepSucceeded(step="a", direction=A, attempt=1, reply={"y": 2}, late=True),
    StepSucceeded(step="a", direction=C, attempt=1),
    StepRejected("a", A, 1, NO),
    StepGivenUp("a", Outcome.UNKNOWN),
    StepSkipped("a", A),
    StepCompleted("a", C, [1]),
    RunStopping(CompensationCause(code=CompensationCode.REJECTED, step="a", failure=NO)),
    StopSuperseded("late"),
    RunCompensating(
        CompensationCause(code=CompensationCode.CANCELLED, operator="ann", reason="why")
    ),
    IncidentOpened(
        number=1,
        step="a",
        direction=A,
        cause=IncidentCause.UNROUTABLE,
        message="message",
        opened_at=NOON,
    ),
    IncidentOpened(
        number=1,
        step="a",
        direction=A,
        cause=IncidentCause.UNROUTABLE,
        message="m",
        opened_at=NOON,
        kept_reply=KeptReply(2, {"x": 1}, Outcome.SUCCEEDED, True),
    ),
    IncidentResolved(1, Resolution.RETRY, "ann", "why"),
    IncidentResolved(1, None, "ann", "why"),
    RunCompleted(NOON, {"a": 1}),
    RunCompensated(NOON),
    RunAbandoned(NOON, "ann", "why"),
]


def test_every_event_has_a_name_and_an_example_here():
    assert set(EVENT_TYPES.values()) == set(get_args(Event)) == set(map(type, EXAMPLES))


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: type(event).__name__)
def test_an_event_is_restored_from_json(event):
    name, data = orjson.loads(orjson.dumps(serialize_event(event)))
    assert deserialize_event(name, data) == event


def test_the_stored_names_are_stable():
    assert sorted(EVENT_TYPES) == [
        "attempt_failed",
        "attempt_started",
        "incident_opened",
        "incident_resolved",
        "run_abandoned",
        "run_compensated",
        "run_compensating",
        "run_completed",
        "run_started",
        "run_stopping",
        "step_completed",
        "step_given_up",
        "step_rejected",
        "step_skipped",
        "step_succeeded",
        "stop_superseded",
    ]


def test_the_stored_data_is_stable():
    assert orjson.dumps(serialize_event(EXAMPLES[4])).decode() == (
        '["attempt_failed",{"step":"a","direction":"action","attempt":1,"outcome":"failed",'
        '"failure":{"code":"no","message":"No.","details":{"why":[1]}},'
        '"retry_at":"2026-01-01T12:00:00+00:00"}]'
    )


def test_an_unknown_event_raises():
    with pytest.raises(KeyError):
        deserialize_event("run_teleported", {})
