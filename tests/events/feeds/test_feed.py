"""Feeds are declared in a module, and a mistake in one is reported with its line."""

import pytest

from saga_engine.errors import DefinitionError
from saga_engine.events import Feed
from saga_engine.events.feeds.feed import ExchangeOptions, Sink, Unroutable


def test_a_feed_skips_events_that_no_queue_is_bound_for_unless_it_says_otherwise():
    feed = Feed("orders")
    feed.to_exchange()
    assert feed.sinks == {Sink.EXCHANGE: ExchangeOptions(Unroutable.SKIP)}


def test_a_feed_publishes_to_the_exchange_once():
    feed = Feed("orders")
    feed.to_exchange()
    with pytest.raises(DefinitionError, match=r"test_feed\.py:\d+: .*twice"):
        feed.to_exchange(unroutable="stop")
