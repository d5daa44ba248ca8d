"""An event after a later one of its stream is late, within what a process remembers."""

from datetime import UTC, datetime

from saga_engine.events.consumers import late_events
from saga_engine.events.consumers.event_reader import read_event
from saga_engine.events.consumers.late_events import LateEvents
from saga_engine.settings import Settings
from tests.kit.consumers import billing_consumer, no_avro, order


def event(version, stream="order-1"):
    message = order(version, stream=stream)
    types = billing_consumer().handlers
    return read_event(message, types, Settings(), datetime(2026, 11, 30, tzinfo=UTC), no_avro)


def test_an_event_before_the_last_one_of_its_stream_is_late():
    late = LateEvents()
    found = [late.is_late(event(each)) for each in (1, 3, 2, 4)]
    assert found == [False, False, True, False]
    assert not late.is_late(event(1, "order-2"))


def test_an_event_without_a_version_is_never_late():
    late = LateEvents()
    assert [late.is_late(event(each)) for each in (0, 0)] == [False, False]


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(late_events, "MAX_STREAMS", 2)
    late = LateEvents()
    for stream in ("order-1", "order-2", "order-3"):
        assert not late.is_late(event(9, stream))
    assert not late.is_late(event(1))
