"""A message of a stream is AMQP 1.0, and its partition is that of RabbitMQ's other clients."""

import re
from dataclasses import replace

import pytest
import rstream
from cloudevents.core.bindings.amqp import AMQPMessage, from_binary_event
from hypothesis import given
from hypothesis import strategies as st

from saga_engine.events.feeds.event_encoder import JsonEncoder
from saga_engine.events.feeds.stream_message import (
    encode_amqp,
    encode_stream_message,
    partition_of,
)
from tests.kit.published_event import AT, DOCUMENT, LOG, PLACED

# What the tests of RabbitMQ's client for Node.js compare with those for other languages.
HASHES_OF_ANOTHER_CLIENT = {
    "rabbit": 3591948756,
    "coders51": 1856831182,
    "d4c39ae6-2fc3-41a2-8771-161251e57d1a": 1772425613,
}


def encoded(event) -> bytes:
    return encode_stream_message(event, JsonEncoder().encode_one(event), LOG.id)


def decoded(encoded: bytes):
    """What rstream reads: message-id, content-type, application properties and data."""
    message = rstream.amqp_decoder(encoded)
    named = message.application_properties or {}
    return (
        message.properties.message_id.decode(),
        message.properties.content_type.decode(),
        {name.decode(): value.decode() for name, value in named.items()},
        bytes(message.body),
    )


def test_the_document_shows_the_message_of_an_event():
    message_id, content_type, named, data = decoded(encoded(PLACED))
    fields = {"content-type": content_type, "message-id": message_id, **named}
    fields["data"] = data.decode()
    [example] = re.findall(
        r"test_stream_message.py compares this -->\n```\n(.*?)```", DOCUMENT, re.DOTALL
    )
    assert example == "".join(f"{name:24} {value}\n" for name, value in fields.items())


def test_the_sdk_of_cloudevents_reads_what_is_written():
    _, content_type, named, data = decoded(encoded(PLACED))
    event = from_binary_event(AMQPMessage({"content-type": content_type}, dict(named), data))
    assert event.get_id() == str(PLACED.id)
    assert (event.get_type(), event.get_subject()) == ("order-placed", "order-o-1")
    assert event.get_time() == AT
    assert event.get_data() == PLACED.data
    assert event.get_extension("correlationid") == "request-7"


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=400)


@given(st.binary(max_size=70_000), TEXTS, st.dictionaries(TEXTS, TEXTS, max_size=20))
def test_every_message_is_read_as_it_was_written(body, message_id, named):
    encoded = encode_amqp(body, message_id or "x", "application/json", named)
    assert decoded(encoded) == (message_id or "x", "application/json", named, body)


def test_the_partition_is_that_of_other_clients():
    for key, expected in HASHES_OF_ANOTHER_CLIENT.items():
        for partitions in (1, 2, 3, 10, 200):
            assert partition_of(key, partitions) == expected % partitions


@pytest.mark.parametrize("partitions", [1, 2, 3, 10, 200])
def test_streams_are_spread_over_all_partitions(partitions):
    found = {partition_of(f"order-{n}", partitions) for n in range(5000)}
    assert found == set(range(partitions))


def test_the_message_depends_on_nothing_but_the_event():
    again = replace(PLACED)
    assert encoded(again) == encoded(PLACED)
