"""Telemetry events hold no payloads."""

import dataclasses

import pytest

from tests.telemetry.event_samples import EVENT_TYPES, SAMPLES


def test_each_event_has_a_sample():
    assert {type(sample) for sample in SAMPLES} == set(EVENT_TYPES)
    assert len(SAMPLES) == len(EVENT_TYPES)


@pytest.mark.parametrize("kind", EVENT_TYPES, ids=lambda kind: kind.__name__)
def test_an_event_is_frozen_and_has_no_field_for_payloads_or_keys(kind):
    names = {field.name for field in dataclasses.fields(kind)}

    assert kind.__dataclass_params__.frozen
    assert not hasattr(kind, "__dict__") or "__slots__" in vars(kind)
    assert names.isdisjoint({"payload", "body", "input", "result", "reply", "key", "headers"})
    assert names.isdisjoint({"event", "level", "timestamp", "logger", "exception"})
