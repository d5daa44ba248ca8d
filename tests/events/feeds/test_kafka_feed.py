"""A feed to Kafka has a position, a lag and actions of its own, as one to the exchange has."""

import asyncio
import sys
from collections import Counter

import pytest

from saga_engine.errors import ConfigurationError
from saga_engine.events.feeds import feed_actions, feed_table
from saga_engine.events.feeds.feed import Sink
from saga_engine.events.feeds.feed_publisher import FeedPublisher
from saga_engine.events.readers.operator_audit import Operator
from saga_engine.settings import Settings
from saga_engine.telemetry.events import FeedAcquired, FeedSinkDiffers, FeedStopped, FeedWaits
from tests.kit.command_line import saga_engine
from tests.kit.connections import raw_channel
from tests.kit.feeds import bind_queue, every_event, receive_from, stored_feed, wait_for_feed
from tests.kit.kafka_feeds import PARTITIONS, TO_KAFKA, kafka_feed, running_kafka_feeds
from tests.kit.kafka_topics import check_records, create_topic, new_topic, read_topic
from tests.kit.programs import wait_until_true
from tests.kit.projections import append_one, append_orders, placed
from tests.kit.servers import crashing_kafka

OPERATOR = Operator("mara", "tested")
NOWHERE = "127.0.0.1:1"


async def wait_for_kafka(database, position):
    await wait_for_feed(database, position, TO_KAFKA.name)


@pytest.mark.parametrize("batch_size", [7, pytest.param(500, marks=pytest.mark.long)])
async def test_every_event_is_published_in_the_order_of_its_stream(
    events, event_url, kafka, feed_database, batch_size
):
    topic = new_topic()
    await append_orders(events, 6)
    feeds = [kafka_feed(topic)]
    async with running_kafka_feeds(
        event_url, kafka.servers, feeds, feed_batch_size=batch_size
    ) as emitted:
        await emitted.wait_for(FeedAcquired)
        await append_orders(events, 3, seed=1)
        await wait_for_kafka(feed_database, await events.position())
    expected = await every_event(events)
    records = await read_topic(kafka.servers, topic)
    check_records(records, expected)
    assert len(records) == len(expected)


async def test_a_feed_goes_to_kafka_and_to_the_exchange_each_with_its_position(
    events, event_url, kafka, development_broker, feed_database
):
    topic = new_topic()
    feed = kafka_feed(topic)
    feed.to_exchange()
    async with raw_channel(development_broker.url) as channel:
        await bind_queue(channel, "billing")
        received = await receive_from(channel, "billing")
        await append_orders(events, 3)
        expected = await every_event(events)
        async with running_kafka_feeds(
            event_url, kafka.servers, [feed], broker_url=development_broker.url
        ) as emitted:
            await emitted.wait_for(FeedAcquired, 2)
            await received.wait_for(len(expected))
            last = await events.position()

            async def have_passed() -> bool:
                return {each.position for each in await positions(feed_database)} == {last}

            await wait_until_true(have_passed)
        received.check(expected)
    check_records(await read_topic(kafka.servers, topic), expected)
    assert {each.sink for each in await positions(feed_database)} == {Sink.EXCHANGE, Sink.KAFKA}


async def positions(database):
    async with database.transaction() as tx:
        return await feed_table.read(tx, TO_KAFKA.name)


async def test_a_rewound_feed_repeats_events_with_the_same_id(
    events, event_url, kafka, feed_database
):
    topic = new_topic()
    await append_orders(events, 5)
    expected = await every_event(events)
    for _ in range(2):
        async with running_kafka_feeds(event_url, kafka.servers, [kafka_feed(topic)]):
            await wait_for_kafka(feed_database, await events.position())
        async with feed_database.transaction() as tx:
            await feed_actions.rewind(tx, TO_KAFKA, 0, OPERATOR)
    records = await read_topic(kafka.servers, topic)
    check_records(records, expected)
    assert set(Counter(each.headers["ce_id"] for each in records).values()) == {2}
    assert len({(each.headers["ce_id"], each.value) for each in records}) == len(expected)


async def test_a_feed_waits_for_an_operator_when_its_topic_has_lost_events(
    events, event_url, kafka_is_installed, feed_database
):
    topic = new_topic()
    async with crashing_kafka() as server:
        async with running_kafka_feeds(event_url, server.servers, [kafka_feed(topic)]):
            await append_orders(events, 3)
            await wait_for_kafka(feed_database, await events.position())
            async with server.losing():
                await append_orders(events, 3, seed=1)
                await wait_for_kafka(feed_database, await events.position())
        async with running_kafka_feeds(event_url, server.servers, [kafka_feed(topic)]) as emitted:
            (waits,) = await emitted.wait_for(FeedWaits)
            assert "it has lost them" in waits.problem
            await append_orders(events, 3, seed=2)
            async with feed_database.transaction() as tx:
                await feed_actions.rewind(tx, TO_KAFKA, 0, OPERATOR)
            await wait_for_kafka(feed_database, await events.position())
        check_records(await read_topic(server.servers, topic), await every_event(events))


async def test_another_number_of_partitions_stops_the_feed_until_an_operator_retries(
    events, event_url, kafka, feed_database
):
    topic = new_topic()
    await create_topic(kafka.servers, topic, partitions=5)
    position = await append_one(events, "order-1", placed())
    async with running_kafka_feeds(event_url, kafka.servers, [kafka_feed(topic)]) as emitted:
        (stopped,) = await emitted.wait_for(FeedStopped)
    assert (stopped.feed, stopped.sink, stopped.position) == ("to-kafka", "kafka", position)
    assert "has 5 partitions, and the feed declares 3" in stopped.problem
    async with feed_database.transaction() as tx:
        await feed_actions.retry(tx, TO_KAFKA, OPERATOR)
    feed = kafka_feed(topic, partitions=5)
    async with running_kafka_feeds(event_url, kafka.servers, [feed]):
        await wait_for_kafka(feed_database, position)
    check_records(await read_topic(kafka.servers, topic), await every_event(events))


async def test_the_command_line_shows_how_a_topic_differs(events, event_url, kafka, feed_database):
    topic = new_topic()
    await create_topic(kafka.servers, topic, PARTITIONS, retention_ms=60_000)
    difference = f"retention.ms of topic '{topic}' is 60000; the feed declares 604800000."
    async with running_kafka_feeds(event_url, kafka.servers, [kafka_feed(topic)]) as emitted:
        (differs,) = await emitted.wait_for(FeedSinkDiffers)
        assert difference in differs.differences
    shown = await saga_engine("feeds", "show", TO_KAFKA.name, database_url=event_url)
    assert difference in shown.out
    as_json = await saga_engine("feeds", "show", TO_KAFKA.name, "--json", database_url=event_url)
    assert difference in as_json.json["feed"]["differences"]
    async with running_kafka_feeds(event_url, kafka.servers, [kafka_feed(new_topic())]) as emitted:
        await emitted.wait_for(FeedAcquired)
    assert (await stored_feed(feed_database, TO_KAFKA.name)).differences == ()


async def test_a_process_stops_while_kafka_is_unavailable(events, event_url, feed_database):
    position = await append_one(events, "order-1", placed())
    async with asyncio.timeout(25):  # the default of shutdown_timeout
        async with running_kafka_feeds(
            event_url, NOWHERE, [kafka_feed("orders")], kafka_delivery_timeout=10.0
        ) as emitted:
            (waits,) = await emitted.wait_for(FeedWaits)
            assert "Kafka is unavailable" in waits.problem
    stored = await stored_feed(feed_database, TO_KAFKA.name)
    assert (stored.position < position, stored.owner) == (True, None)


async def test_a_process_reports_what_is_wrong_with_kafka(events, event_url, feed_database):
    settings = Settings(kafka_bootstrap_servers=NOWHERE, kafka_request_timeout=0.5)
    async with FeedPublisher(
        [kafka_feed("orders")], event_url, settings, lambda _event: None
    ) as publisher:
        stop = asyncio.Event()

        async def has_problem() -> bool:
            return "Kafka is unavailable" in (publisher.problem or "")

        assert not await has_problem()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(publisher.run(stop))
            await wait_until_true(has_problem)
            assert publisher.waiting_for_sink == {TO_KAFKA}
            stop.set()


async def test_a_feed_to_kafka_needs_the_servers_and_no_rabbitmq(event_url):
    with pytest.raises(ConfigurationError, match="KAFKA_BOOTSTRAP_SERVERS is not set"):
        FeedPublisher([kafka_feed("orders")], event_url, Settings(), lambda _event: None)


async def test_a_missing_library_is_a_sentence_that_names_the_extra(
    event_url, feed_database, monkeypatch
):
    for name in [each for each in sys.modules if each.startswith("saga_engine.events.feeds.kafka")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(ConfigurationError, match=r"Install saga-engine\[kafka\]"):
        async with running_kafka_feeds(event_url, NOWHERE, [kafka_feed("orders")]):
            pass
