"""Feeds are declared in a module, and a mistake in one is reported with its line."""

from datetime import timedelta

import pytest

from saga_engine.errors import DefinitionError
from saga_engine.events import Feed
from saga_engine.events.feeds.feed import ExchangeOptions, KafkaOptions, Sink, Unroutable


def test_a_feed_skips_events_that_no_queue_is_bound_for_unless_it_says_otherwise():
    feed = Feed("orders")
    feed.to_exchange()
    assert feed.sinks == {Sink.EXCHANGE: ExchangeOptions(Unroutable.SKIP)}


def test_a_feed_publishes_to_the_exchange_once():
    feed = Feed("orders")
    feed.to_exchange()
    with pytest.raises(DefinitionError, match=r"test_feed\.py:\d+: .*twice"):
        feed.to_exchange(unroutable="stop")


def test_a_feed_keeps_events_in_kafka_for_a_week_on_three_servers_unless_it_says_otherwise():
    feed = Feed("orders")
    feed.to_kafka("orders", partitions=10)
    assert feed.sinks[Sink.KAFKA] == KafkaOptions(
        topic="orders",
        partitions=10,
        replication=3,
        retention=timedelta(days=7),
        compression="snappy",
        max_message_bytes=1_048_576,
        encoding="json",
    )


def test_a_feed_publishes_to_one_topic():
    feed = Feed("orders")
    feed.to_kafka("orders", partitions=10)
    with pytest.raises(DefinitionError, match=r"test_feed\.py:\d+: .*Call to_kafka once"):
        feed.to_kafka("others", partitions=10)
