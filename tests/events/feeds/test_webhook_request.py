"""The request of an event is a CloudEvent over HTTP, the same at each attempt."""

import re
from dataclasses import replace

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_binary_event

from saga_engine.events.feeds.webhook_request import HeadersTooLarge, encode_request
from tests.kit import published_event
from tests.kit.published_event import AT, LOG

PLACED = replace(
    published_event.PLACED,
    data={"customer": "mára", "total": "12.50"},
    correlation_id=None,
    actor='mára "the 100% buyer"\r\nx-forged: 1',
)


def test_the_sdk_of_cloudevents_reads_the_request():
    request = encode_request(PLACED, LOG.id)
    event = from_binary_event(HTTPMessage(request.headers, request.body))
    assert event.get_id() == request.id == str(PLACED.id)
    assert event.get_type() == "order-placed"
    assert event.get_subject() == "order-o-1"
    assert event.get_time() == AT
    assert event.get_extension("actor") == PLACED.actor
    assert event.get_data() == PLACED.data
    assert encode_request(replace(PLACED), LOG.id) == request


def test_a_header_has_printable_ascii_only():
    for name, value in encode_request(PLACED, LOG.id).headers.items():
        assert re.fullmatch(r"[a-z-]+", name)
        assert re.fullmatch(r"[\x21-\x7e]*", value)


def test_more_headers_than_receivers_accept_are_refused():
    with pytest.raises(HeadersTooLarge, match="8192 are allowed"):
        encode_request(replace(PLACED, actor="x" * 9_000), LOG.id)
