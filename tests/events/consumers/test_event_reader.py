"""A message becomes an event, or the reason why it is none; nothing in it raises an error."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saga_engine.events.consumers.event_reader import read_event
from saga_engine.events.consumers.received import Received
from saga_engine.protocol.unreadable import UnreadableMessage
from saga_engine.settings import Settings
from tests.kit.consumers import attributes_of, billing_consumer, message_of, no_avro

NOW = datetime(2026, 11, 30, 13, tzinfo=UTC)
SETTINGS = Settings(max_body_bytes=1_000)
TYPES = billing_consumer().handlers
DATA = {"customer": "ada", "total": "12.50"}


def read(attributes: Any, data: Any = DATA, **more: Any) -> Any:
    return read_event(message_of(attributes, data, **more), TYPES, SETTINGS, NOW, no_avro)


def test_an_event_of_a_feed_has_what_its_attributes_say():
    event = read(attributes_of(7, correlationid="request-7", causationid="c-1", actor="mara"))
    assert (event.stream, event.version, event.position) == ("order-o-1", 7, 7)
    assert (event.type, event.schema_version, event.data) == ("order-placed", 1, DATA)
    assert event.recorded_at == datetime(2026, 11, 30, 12, microsecond=1, tzinfo=UTC)
    assert (event.correlation_id, event.causation_id, event.actor) == ("request-7", "c-1", "mara")
    assert event.id == UUID(int=7)
    assert (event.source_id, event.source) == (
        "00000000-0000-0000-0000-000000000007",
        "urn:uuid:0198c0de-0000-7000-8000-000000000001",
    )


def test_an_event_of_another_producer_has_only_what_cloudevents_requires():
    attributes = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "order-placed"}
    event = read(attributes)
    assert (event.stream, event.version, event.position, event.schema_version) == ("", 0, 0, 1)
    assert (event.recorded_at, event.correlation_id) == (NOW, None)
    assert (event.source, event.source_id) == ("/shop", "7")
    assert event.key == read(attributes).key
    assert event.key != read(attributes | {"source": "/shop2"}).key
    assert event.key != read(attributes | {"source": "/sho", "id": "p7"}).key


def test_a_type_without_a_function_is_passed_over_before_its_data_is_read():
    assert (
        read_event(
            message_of(attributes_of(1, type="x"), body=b"\0"), TYPES, SETTINGS, NOW, no_avro
        )
        is None
    )


@pytest.mark.parametrize(
    ("attributes", "more", "problem"),
    [
        ({}, {}, "no attributes of CloudEvents"),
        (attributes_of(1, specversion="0.3"), {}, "specversion is not 1.0"),
        (attributes_of(1, id=""), {}, "attribute id is missing"),
        (attributes_of(1, source=7), {}, "attribute source is missing"),
        (attributes_of(1, type=None), {}, "attribute type is missing"),
        (attributes_of(1, subject="x" * 2_001), {}, "subject has more than 2000 bytes"),
        (attributes_of(1, subject="\U00020000" * 501), {}, "subject has more than 2000 bytes"),
        (attributes_of(1, schemaversion="0"), {}, "schemaversion is not a number"),
        (attributes_of(1), {"problem": "Its headers cannot be decoded."}, "cannot be decoded"),
        (attributes_of(1), {"body": b"{"}, "not JSON"),
        (attributes_of(1), {"body": b'"' + b"x" * 1_000 + b'"'}, "max_body_bytes allows 1000"),
        (attributes_of(1), {"body": b"[" * 500}, "nest"),
        (attributes_of(1), {"content_encoding": "gzip"}, "compressed"),
    ],
)
def test_a_message_that_cannot_be_read_is_described(attributes, more, problem):
    unreadable = read(attributes, **more)
    assert isinstance(unreadable, UnreadableMessage)
    assert problem in unreadable.explanation


@pytest.mark.parametrize("time", ["yesterday", "2026-11-30T12:00:00", "9999-12-31T23:59:59-23:00"])
def test_a_time_that_says_nothing_is_that_of_the_receipt(time):
    assert read(attributes_of(1, time=time)).recorded_at == NOW


HOSTILE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(
    st.dictionaries(st.sampled_from([*attributes_of(1), "correlationid", "actor"]), HOSTILE),
    st.booleans(),
    st.binary(max_size=60) | st.just(b'{"customer": "ada", "total": "1"}'),
    st.text(max_size=10) | st.just(""),
)
def test_no_message_raises_an_error(attributes, is_event, body, encoding):
    given_attributes = {**attributes_of(1), **attributes} if is_event else attributes
    message = message_of(given_attributes, body=body, content_encoding=encoding)
    event = read_event(message, TYPES, SETTINGS, NOW, no_avro)
    if isinstance(event, Received):
        assert isinstance(event.id, UUID)
        assert event.recorded_at.tzinfo is not None
        assert 0 <= event.version < 2**31
        assert 0 <= event.position < 2**63
