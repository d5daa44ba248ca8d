"""JSON as it is stored: strict for the engine's values, tolerant for those of senders."""

import math
from datetime import UTC, datetime
from typing import Any

import pytest

from saga_engine.errors import StoreRefused
from saga_engine.store.json_column import dumps, make_storable


@pytest.mark.parametrize("value", [2**64, "\ud800", {"a": [object()]}])
def test_a_value_that_json_cannot_hold_is_refused(value: Any):
    with pytest.raises(StoreRefused, match="cannot be written as JSON"):
        dumps(value)


def test_keys_are_sorted_on_request():
    assert dumps({"b": 1, "a": "é"}, sort_keys=True) == '{"a":"é","b":1}'
    assert dumps({"b": datetime(2026, 1, 1, tzinfo=UTC)}) == '{"b":"2026-01-01T00:00:00+00:00"}'


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ({"a": [1, 2.5, None, True]}, {"a": [1, 2.5, None, True]}),
        ("a\x00b", "a\ufffdb"),
        ("\ud800", "?"),
        (math.inf, "inf"),
        (2**63, str(2**63)),
        ({1: (2,)}, {"1": [2]}),
        (b"\xff", "b'\\xff'"),
    ],
)
def test_any_value_becomes_storable(value: Any, stored: Any):
    assert make_storable(value) == stored
    dumps(make_storable(value))


def test_deep_nesting_is_cut():
    assert make_storable([[["x"]]], depth=2) == [[[]]]
