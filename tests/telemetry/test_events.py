"""Observers watch; they cannot harm what they watch."""

import dataclasses

import pytest

from saga_engine.errors import StoreRefused
from saga_engine.telemetry.events import (
    Emitter,
    ObserverFailed,
    ProcessReady,
    TelemetryEvent,
    describe_error,
)
from tests.telemetry.event_samples import EVENT_TYPES, SAMPLES, raise_error

READY = ProcessReady(program="worker")


def test_there_is_a_sample_of_each_fact():
    assert {type(sample) for sample in SAMPLES} == set(EVENT_TYPES)
    assert len(SAMPLES) == len(EVENT_TYPES)


@pytest.mark.parametrize("kind", EVENT_TYPES, ids=lambda kind: kind.__name__)
def test_a_fact_is_frozen_slotted_and_holds_no_field_for_a_payload_or_a_business_key(kind):
    names = {field.name for field in dataclasses.fields(kind)}

    assert kind.__dataclass_params__.frozen
    assert not hasattr(kind, "__dict__") or "__slots__" in vars(kind)
    assert names.isdisjoint({"payload", "body", "input", "result", "reply", "key", "headers"})
    assert names.isdisjoint({"event", "level", "timestamp", "logger", "exception"})


def test_every_observer_is_told_in_order():
    told: list[tuple[str, TelemetryEvent]] = []
    tell = Emitter(
        lambda fact: told.append(("first", fact)), lambda fact: told.append(("next", fact))
    )

    tell(READY)

    assert told == [("first", READY), ("next", READY)]


def test_telling_nobody_is_fine():
    Emitter()(READY)


def test_an_observer_that_raises_is_reported_once_to_the_others_and_harms_nobody():
    told: list[TelemetryEvent] = []

    def broken(_: TelemetryEvent) -> None:
        raise RuntimeError("canary")

    tell = Emitter(broken, told.append)
    tell(READY)
    tell(READY)

    reports = [fact for fact in told if isinstance(fact, ObserverFailed)]
    assert told.count(READY) == 2
    assert len(reports) == 1
    assert "broken" in reports[0].observer
    assert reports[0].problem.startswith("RuntimeError at ")
    assert "canary" not in reports[0].problem


def test_when_all_observers_raise_the_engine_does_not_notice():
    def broken(_: TelemetryEvent) -> None:
        raise RuntimeError

    Emitter(broken, broken)(READY)


def test_an_error_of_ours_is_described_in_its_words_and_a_foreign_one_by_its_place():
    with pytest.raises(KeyError) as caught:
        raise_error(KeyError("canary"))
    foreign = describe_error(caught.value)

    assert describe_error(StoreRefused("No such row.")) == "StoreRefused: No such row."
    assert foreign.startswith("KeyError at ")
    assert "samples.py" in foreign
    assert "canary" not in foreign
