"""Triggers that are recorded before they are decided."""

from typing import get_args

import orjson
import pytest

from saga_engine.decider.triggers import (
    Cancel,
    CommandUnroutable,
    MalformedReply,
    ReplyReceived,
    ResolveIncident,
    Start,
    Trigger,
    WakeUp,
)
from saga_engine.store.trigger_data import TRIGGER_TYPES, deserialize_trigger, serialize_trigger
from saga_engine.vocabulary import Direction, Failure, Json, Outcome, Resolution

A = Direction.ACTION
EXAMPLES: list[Trigger] = [
    Start("r", "k", {"x": 1}),
    ReplyReceived(
        step="a",
        direction=A,
        attempt=1,
        outcome=Outcome.REJECTED,
        failure=Failure("no", details=[1]),
    ),
    ReplyReceived(step="a", direction=A, attempt=1, outcome=Outcome.SUCCEEDED, body={"x": 1}),
    MalformedReply(step="a", direction=A, attempt=1, problem="?"),
    MalformedReply(
        step="a", direction=A, attempt=1, problem="?", outcome=Outcome.REJECTED, raw_text="{"
    ),
    CommandUnroutable("a", A, 1),
    CommandUnroutable("a", A, 1, never_delivered=True),
    WakeUp(),
    Cancel("ann", "why"),
    ResolveIncident(
        incident_number=1,
        resolution=Resolution.COMPLETE,
        operator="ann",
        reason="why",
        result={"x": 1},
    ),
]


def test_every_trigger_has_a_name_and_an_example_here():
    assert set(TRIGGER_TYPES.values()) == set(get_args(Trigger)) == set(map(type, EXAMPLES))


@pytest.mark.parametrize("trigger", EXAMPLES, ids=lambda trigger: type(trigger).__name__)
def test_a_trigger_is_restored_from_json(trigger):
    name, data = orjson.loads(orjson.dumps(serialize_trigger(trigger)))
    key = trigger.key if isinstance(trigger, Start) else None
    assert deserialize_trigger(name, data, run_id="r", key=key) == trigger


def test_the_run_of_a_start_comes_from_its_row():
    assert serialize_trigger(Start("r", "k", 7)) == ("start", {"input": 7})
    with pytest.raises(ValueError, match="other fields"):
        deserialize_trigger("start", {"input": 7, "run_id": "other"}, run_id="r")


def test_an_unknown_kind_raises_a_value_error():
    with pytest.raises(ValueError, match="no such request"):
        deserialize_trigger("prayed", {}, run_id="r")


@pytest.mark.parametrize("data", [[], "text", 7, None])
def test_data_that_is_not_an_object_raises_a_value_error(data):
    with pytest.raises(ValueError, match="not an object"):
        deserialize_trigger("wake_up", data, run_id="r")


REPLY: dict[str, Json] = {"step": "a", "direction": "action", "attempt": 1, "outcome": "succeeded"}
FAILED: dict[str, Json] = {**REPLY, "outcome": "failed", "failure": {"code": "no"}}


def test_stored_replies_are_valid():
    for data in (REPLY, FAILED, {**FAILED, "outcome": "rejected"}):
        assert isinstance(deserialize_trigger("reply", data, run_id="r"), ReplyReceived)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("start", {}),
        ("cancel", {"operator": "x"}),
        ("cancel", {"operator": "x", "reason": 7}),
        ("cancel", {"operator": None, "reason": "x"}),
        ("cancel", {"operator": "x", "reason": "x", "more": 1}),
        (
            "resolve",
            {"incident_number": True, "resolution": "skip", "operator": "x", "reason": "x"},
        ),
        ("resolve", {"incident_number": 0, "resolution": "skip", "operator": "x", "reason": "x"}),
        (
            "resolve",
            {"incident_number": 2**31, "resolution": "skip", "operator": "x", "reason": "x"},
        ),
        ("resolve", {"incident_number": 1, "resolution": "pray", "operator": "x", "reason": "x"}),
        ("resolve", {"incident_number": 1, "resolution": None, "operator": "x", "reason": "x"}),
        ("resolve", {"incident_number": 1, "resolution": {}, "operator": "x", "reason": "x"}),
        ("unroutable", {"step": "a", "direction": "action", "attempt": 1, "never_delivered": 1}),
        ("reply", {**REPLY, "attempt": "1"}),
        ("reply", {**REPLY, "step": ["a"]}),
        ("reply", {**REPLY, "outcome": "unknown"}),
        ("reply", {**REPLY, "failure": {"code": "no"}}),
        ("reply", {**REPLY, "outcome": "failed"}),
        ("reply", {**FAILED, "failure": 7}),
        ("reply", {**FAILED, "failure": {"code": 7}}),
        ("reply", {**FAILED, "failure": {"message": "x"}}),
    ],
)
def test_data_of_another_form_raises_a_value_error(name, data):
    with pytest.raises(ValueError, match="recorded"):
        deserialize_trigger(name, data, run_id="r")
