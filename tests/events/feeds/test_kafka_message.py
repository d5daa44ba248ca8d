"""A message for Kafka is a CloudEvent, and the same whenever an event is published."""

import re
from dataclasses import replace

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage as SdkMessage
from cloudevents.core.bindings.kafka import from_binary_event

from saga_engine.events.feeds.event_encoder import JsonEncoder
from saga_engine.events.feeds.kafka_message import encode_message
from tests.kit.kafka_feeds import some_events
from tests.kit.published_event import AT, DOCUMENT, LOG, PLACED


def encoded(event=PLACED):
    return encode_message(event, JsonEncoder().encode_one(event), LOG.id)


def test_the_document_shows_the_message_of_an_event():
    message = encoded()
    fields = {"key": message.key, **dict(message.headers), "value": message.value}
    described = "".join(f"{name:20} {value.decode()}\n" for name, value in fields.items())
    [example] = re.findall(
        r"test_kafka_message.py compares this -->\n```\n(.*?)```", DOCUMENT, re.DOTALL
    )
    assert example == described


def test_the_sdk_of_cloudevents_reads_what_is_written():
    message = encoded(replace(PLACED, causation_id="command-1", actor="mára"))
    event = from_binary_event(SdkMessage(dict(message.headers), message.key, message.value))
    assert event.get_id() == str(PLACED.id)
    assert event.get_source() == "urn:uuid:0198c0de-0000-7000-8000-000000000001"
    assert (event.get_type(), event.get_subject()) == ("order-placed", "order-o-1")
    assert (event.get_time(), event.get_data()) == (AT, PLACED.data)
    assert event.get_extension("correlationid") == "request-7"
    assert event.get_extension("actor") == "mára"
    assert event.get_extension("partitionkey") == "order-o-1"
    assert int(event.get_extension("sequence")) == 4711


@pytest.mark.parametrize("size", [0, 200, 70_000])
def test_the_size_is_at_least_that_of_all_bytes_and_at_most_a_little_more(size):
    [event] = some_events(1, size=size)
    message = encoded(event)
    headers = sum(len(name) + len(value) for name, value in message.headers)
    content = len(message.key) + len(message.value) + headers
    assert content + 61 < message.size < content + 61 + 200
