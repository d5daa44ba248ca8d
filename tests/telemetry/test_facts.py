"""Observers watch; they cannot harm what they watch."""

import dataclasses

import pytest

from saga_engine.errors import StoreRefused
from saga_engine.telemetry.events import Fact, ObserverFailed, ProcessReady, Tell, described
from tests.telemetry.samples import KINDS, SAMPLES, fail

READY = ProcessReady(program="worker")


def test_there_is_a_sample_of_each_fact():
    assert {type(sample) for sample in SAMPLES} == set(KINDS)
    assert len(SAMPLES) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_fact_is_frozen_slotted_and_holds_no_field_for_a_payload_or_a_business_key(kind):
    names = {field.name for field in dataclasses.fields(kind)}

    assert kind.__dataclass_params__.frozen
    assert not hasattr(kind, "__dict__") or "__slots__" in vars(kind)
    assert names.isdisjoint({"payload", "body", "input", "result", "reply", "key", "headers"})
    assert names.isdisjoint({"event", "level", "timestamp", "logger", "exception"})


def test_every_observer_is_told_in_order():
    told: list[tuple[str, Fact]] = []
    tell = Tell(lambda fact: told.append(("first", fact)), lambda fact: told.append(("next", fact)))

    tell(READY)

    assert told == [("first", READY), ("next", READY)]


def test_telling_nobody_is_fine():
    Tell()(READY)


def test_an_observer_that_raises_is_reported_once_to_the_others_and_harms_nobody():
    told: list[Fact] = []

    def broken(_: Fact) -> None:
        raise RuntimeError("canary")

    tell = Tell(broken, told.append)
    tell(READY)
    tell(READY)

    reports = [fact for fact in told if isinstance(fact, ObserverFailed)]
    assert told.count(READY) == 2
    assert len(reports) == 1
    assert "broken" in reports[0].observer
    assert reports[0].problem.startswith("RuntimeError at ")
    assert "canary" not in reports[0].problem


def test_when_all_observers_raise_the_engine_does_not_notice():
    def broken(_: Fact) -> None:
        raise RuntimeError

    Tell(broken, broken)(READY)


def test_an_error_of_ours_is_described_in_its_words_and_a_foreign_one_by_its_place():
    with pytest.raises(KeyError) as caught:
        fail(KeyError("canary"))
    foreign = described(caught.value)

    assert described(StoreRefused("No such row.")) == "StoreRefused: No such row."
    assert foreign.startswith("KeyError at ")
    assert "samples.py" in foreign
    assert "canary" not in foreign
