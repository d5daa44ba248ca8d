"""Every observer gets each event, and a failing one harms nothing."""

import pytest

from saga_engine.errors import StoreRefused
from saga_engine.telemetry.events import (
    Emitter,
    ObserverFailed,
    ProcessReady,
    TelemetryEvent,
    describe_error,
)
from saga_engine.vocabulary import Program
from tests.telemetry.event_samples import raise_error

READY = ProcessReady(program=Program.WORKER)


def test_observers_are_called_in_order():
    observed: list[tuple[str, TelemetryEvent]] = []
    emit = Emitter(
        lambda event: observed.append(("first", event)),
        lambda event: observed.append(("next", event)),
    )

    emit(READY)

    assert observed == [("first", READY), ("next", READY)]


def test_an_emitter_needs_no_observer():
    Emitter()(READY)


def test_a_failing_observer_is_reported_once_to_the_others():
    observed: list[TelemetryEvent] = []

    def broken(_: TelemetryEvent) -> None:
        raise RuntimeError("canary")

    emit = Emitter(broken, observed.append)
    emit(READY)
    emit(READY)

    reports = [event for event in observed if isinstance(event, ObserverFailed)]
    assert observed.count(READY) == 2
    assert len(reports) == 1
    assert "broken" in reports[0].observer
    assert reports[0].problem.startswith("RuntimeError at ")
    assert "canary" not in reports[0].problem


def test_the_engine_continues_when_all_observers_fail():
    def broken(_: TelemetryEvent) -> None:
        raise RuntimeError

    Emitter(broken, broken)(READY)


def test_a_foreign_error_is_described_without_its_text():
    with pytest.raises(KeyError) as caught:
        raise_error(KeyError("canary"))
    foreign = describe_error(caught.value)

    assert describe_error(StoreRefused("No such row.")) == "StoreRefused: No such row."
    assert foreign.startswith("KeyError at ")
    assert "samples.py" in foreign
    assert "canary" not in foreign
