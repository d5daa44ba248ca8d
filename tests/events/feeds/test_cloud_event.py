"""A feed's messages are CloudEvents, and the same whenever an event is published."""

import re
from dataclasses import replace
from datetime import timedelta, timezone

import pytest
from cloudevents.core.bindings.rabbitmq import RabbitMQMessage, from_binary_event

from saga_engine.events.feeds.cloud_event import encode_event, routing_key
from tests.kit.published_event import AT, DOCUMENT, LOG, PLACED


def described(message):
    """The lines of the example in docs/protocol.md."""
    fields = {
        "routing key": message.routing_key,
        "content_type": "application/json",
        "message_id": message.message_id,
        **message.headers,
        "body": message.body.decode(),
    }
    return "".join(f"{name:20} {value}\n" for name, value in fields.items())


def test_the_document_shows_the_message_of_an_event():
    [example] = re.findall(
        r"test_cloud_event.py compares this -->\n```\n(.*?)```", DOCUMENT, re.DOTALL
    )
    assert example == described(encode_event(PLACED, LOG.id))


def test_the_document_has_every_header():
    everything = replace(PLACED, causation_id="command-1", actor="mara")
    for name in encode_event(everything, LOG.id).headers:
        assert f"`{name}`" in DOCUMENT


def test_the_sdk_of_cloudevents_reads_what_is_written():
    message = encode_event(PLACED, LOG.id)
    headers = {name: str(value) for name, value in message.headers.items()}
    event = from_binary_event(RabbitMQMessage(headers, "application/json", message.body))
    assert event.get_id() == str(PLACED.id)
    assert event.get_source() == "urn:uuid:0198c0de-0000-7000-8000-000000000001"
    assert (event.get_type(), event.get_subject()) == ("order-placed", "order-o-1")
    assert event.get_time() == AT
    assert event.get_data() == PLACED.data
    assert event.get_extension("correlationid") == "request-7"
    assert int(event.get_extension("sequence")) == 4711


def test_the_message_does_not_depend_on_the_time_zone_of_the_reader():
    elsewhere = replace(PLACED, recorded_at=AT.astimezone(timezone(timedelta(hours=5, minutes=30))))
    assert encode_event(elsewhere, LOG.id) == encode_event(PLACED, LOG.id)


def test_sequences_are_ordered_like_positions():
    positions = [1, 9, 10, 999, 1000, 2**63 - 1]
    sequences = [
        encode_event(replace(PLACED, position=each), LOG.id).headers["ce-sequence"]
        for each in positions
    ]
    assert sequences == sorted(sequences, key=str)


@pytest.mark.parametrize(
    ("stream", "key"),
    [("order-o-1", "order.order-placed"), ("run-0198", "run.order-placed")],
)
def test_the_routing_key_has_the_aggregate_and_the_type(stream, key):
    assert routing_key(replace(PLACED, stream=stream)) == key


@pytest.mark.parametrize("number", ["18446744073709551616", "0.12345678901234567890", "1.10"])
def test_numbers_are_published_with_all_digits_that_are_stored(number):
    """Another program can insert more than Python reads from JSON."""
    stored = f'{{"total":\n{number}}}'
    row = ("order-o-1", 1, 0, 4711, AT, "order-placed", 1, stored, "{}")
    assert encode_event(LOG.recorded(row), LOG.id).body.decode() == f'{{"total": {number}}}'
