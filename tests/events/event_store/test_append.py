"""What may be appended: everything that PostgreSQL stores unchanged, within the limits."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel

from saga_engine.errors import InvalidInput
from saga_engine.events import ANY, EXISTING, NEW, Append, EventData, MessageContext
from saga_engine.events.event_store.append import checked_events, metadata_json
from saga_engine.events.event_store.event_types import declare_event_type
from saga_engine.settings import Settings
from tests.kit.event_database import placed

SETTINGS = Settings(max_append_events=3, max_event_bytes=100)


class Placed(BaseModel):
    total: int


declare_event_type(Placed, "order-placed", 2, "orders.py:1")


class Undeclared(BaseModel):
    total: int


def check(*appends: Append) -> list:
    return checked_events(appends, SETTINGS)


@pytest.mark.parametrize(
    ("stream", "sentence"),
    [
        ("", "must be a text that is not empty"),
        ("order", "is not the name of a stream. It is <aggregate>-<id>, such as order-o-1"),
        ("-1", "is not the name of a stream"),
        ("order-", "is not the name of a stream"),
        ("run-1", "belongs to a run, whose events only the engine appends"),
        ("order-\0", "that PostgreSQL can store"),
        ("order-\ud800", "that PostgreSQL can store"),
        ("order-" + "é" * 130, "has more than 255 bytes"),
        (7, "must be a text"),
        ("order-*", r"has the character '\*'.*ends a pattern of names"),
        ("order-1\n", r"has the character '\\n'"),
        ("order-\u2028", "no control characters"),
    ],
)
def test_the_name_of_a_stream_is_checked(stream: Any, sentence: str):
    with pytest.raises(InvalidInput, match=sentence):
        check(Append(stream, [placed()]))


@pytest.mark.parametrize("expected", [-1, True, "new ", 2**31, None, 1.0])
def test_what_a_stream_is_expected_to_be_is_checked(expected: Any):
    with pytest.raises(InvalidInput, match="neither a version, from 0, nor NEW, EXISTING or ANY"):
        check(Append("order-1", [placed()], expected))


@pytest.mark.parametrize("expected", [NEW, ANY, EXISTING, 0, 2**31 - 1])
def test_a_version_or_a_state_can_be_expected(expected: Any):
    assert [event.expected for event in check(Append("order-1", [placed()], expected))] == [
        expected
    ]


@pytest.mark.parametrize(
    "data",
    [
        {"text": "\0"},
        {"\0": 1},
        {"text": "\ud800"},
        {"number": float("nan")},
        {"number": float("inf")},
        {"number": 2**64},
    ],
)
def test_data_that_postgresql_cannot_store_is_refused_with_a_sentence(data: Any):
    with pytest.raises(InvalidInput, match="has what no database accepts"):
        check(Append("order-1", [EventData("order-placed", 1, data)]))


@pytest.mark.parametrize("data", [{"at": datetime(2026, 1, 1, tzinfo=UTC)}, {1: "one"}, (1, 2)])
def test_data_that_would_be_read_as_something_else_is_refused(data: Any):
    with pytest.raises(InvalidInput, match="is not JSON, and would be read as something else"):
        check(Append("order-1", [EventData("order-placed", 1, data)]))


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        (placed(text="x" * 100), "max_event_bytes allows.*Store the data elsewhere"),
        (placed(amount=1e90), "max_event_bytes allows"),
        (EventData("", 1, {}), "'' for stream 'order-1' is not the name of an event"),
        (EventData("x" * 128, 1, {}), "is not the name of an event.*at most 127 bytes"),
        (EventData("Fee Charged", 1, {}), "'Fee Charged' for stream 'order-1' is not the name"),
        (EventData(7, 1, {}), "7 for stream 'order-1' is not the name of an event"),  # type: ignore[arg-type]
        (EventData("order-placed", 0, {}), "has the schema version 0; the first one is 1"),
        (Undeclared(total=1), "has a Undeclared, which is not an event. Declare its class"),
    ],
)
def test_an_event_is_checked(event: Any, sentence: str):
    with pytest.raises(InvalidInput, match=sentence):
        check(Append("order-1", [event]))


def test_an_append_without_events_is_refused():
    with pytest.raises(InvalidInput, match="has no events"):
        check(Append("order-1", []))


@pytest.mark.parametrize(
    ("appends", "sentence"),
    [
        ((), r"Nothing is appended\. Give at least one Append"),
        (("order-1", placed()), r"What is appended is of the class str\. Give each as an argument"),
        (([Append("order-1", [placed()])],), "What is appended is of the class list"),
        ((Append("order-1", placed()),), "is of the class EventData. Give a list"),  # type: ignore[arg-type]
        ((Append("order-1", "placed"),), "is of the class str. Give a list"),
    ],
)
def test_what_is_not_an_append_is_refused(appends: Any, sentence: str):
    with pytest.raises(InvalidInput, match=sentence):
        check(*appends)


@pytest.mark.parametrize("context", ["mara", {"actor": "mara"}])
def test_what_is_not_a_context_is_refused(context: Any):
    with pytest.raises(
        InvalidInput, match=r"The context is of the class \w+\. Give MessageContext"
    ):
        metadata_json(context, SETTINGS)


def test_a_stream_is_given_once():
    with pytest.raises(InvalidInput, match="is twice in one append"):
        check(Append("order-1", [placed()]), Append("order-1", [placed()]))


def test_the_number_of_events_is_limited():
    assert len(check(Append("order-1", [placed()]), Append("order-2", [placed()] * 2))) == 3
    with pytest.raises(InvalidInput, match="has 4 events; max_append_events allows 3"):
        check(Append("order-1", [placed()] * 2), Append("order-2", [placed()] * 2))


def test_an_instance_of_a_declared_event_is_written_as_its_newest_version():
    [event] = check(Append("order-1", [Placed(total=12)]))
    assert (event.type, event.schema_version, event.data) == ("order-placed", 2, '{"total":12}')


def test_an_instance_that_cannot_be_written_is_refused():
    broken = Placed(total=1)
    broken.__dict__["total"] = "much"
    with pytest.raises(InvalidInput, match="'order-placed' for stream 'order-1' cannot be stored"):
        check(Append("order-1", [broken]))


def test_the_metadata_has_what_is_known():
    assert metadata_json(MessageContext(), SETTINGS) == "{}"
    known = MessageContext(correlation_id="run-1", actor="mara")
    assert metadata_json(known, SETTINGS) == '{"correlation_id":"run-1","actor":"mara"}'
    with pytest.raises(InvalidInput, match="The causation_id of an append"):
        metadata_json(MessageContext(causation_id="\0"), SETTINGS)
