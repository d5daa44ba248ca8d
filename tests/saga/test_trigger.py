"""Triggers that are recorded before they are decided."""

from typing import get_args

import orjson
import pytest

from saga_engine.saga.run import Failure
from saga_engine.saga.trigger import (
    TRIGGERS,
    Cancel,
    Garbled,
    Replied,
    Resolve,
    Returned,
    Start,
    Trigger,
    Woken,
    recorded_trigger,
    trigger_data,
)
from saga_engine.saga.vocabulary import Direction, Outcome, Resolution

A = Direction.ACTION
EXAMPLES: list[Trigger] = [
    Start("r", "k", {"x": 1}),
    Replied("a", A, 1, Outcome.REJECTED, failure=Failure("no", details=[1])),
    Replied("a", A, 1, Outcome.SUCCEEDED, {"x": 1}),
    Garbled("a", A, 1, "?"),
    Garbled("a", A, 1, "?", Outcome.REJECTED, "{"),
    Returned("a", A, 1),
    Returned("a", A, 1, first=True),
    Woken(),
    Cancel("ann", "why"),
    Resolve(1, Resolution.COMPLETE, "ann", "why", {"x": 1}),
]


def test_every_trigger_has_a_name_and_an_example_here():
    assert set(TRIGGERS.values()) == set(get_args(Trigger)) == set(map(type, EXAMPLES))


@pytest.mark.parametrize("trigger", EXAMPLES, ids=lambda trigger: type(trigger).__name__)
def test_a_trigger_survives_a_trip_through_json(trigger):
    name, data = orjson.loads(orjson.dumps(trigger_data(trigger)))
    assert recorded_trigger(name, data) == trigger


def test_a_trigger_this_engine_does_not_know_raises():
    with pytest.raises(KeyError):
        recorded_trigger("prayed", {})


@pytest.mark.parametrize("data", [[], "text", 7, None])
def test_a_row_whose_data_is_no_object_raises_what_is_promised(data):
    with pytest.raises(TypeError):
        recorded_trigger("woken", data)
