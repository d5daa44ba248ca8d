"""A stream that is not as the feed declares it is named, and not changed."""

from datetime import timedelta

import pytest

from saga_engine.events.feeds import feed_actions
from saga_engine.events.feeds.stream_message import partition_of
from saga_engine.events.readers.operator_audit import Operator
from saga_engine.protocol.message import PublishOutcome
from saga_engine.telemetry.events import FeedStopped
from tests.kit.connections import raw_channel
from tests.kit.feeds import every_event, order_event, wait_for_feed
from tests.kit.projections import append_one, append_orders, placed
from tests.kit.streams import STREAM_ORDERS, THREE, stored_messages, stream_feed

pytestmark = pytest.mark.rabbitmq

OPERATOR = Operator("mara", "tested")


@pytest.mark.parametrize("declared", [pytest.param(1, marks=pytest.mark.long), 2, 5])
async def test_a_feed_stops_at_a_stream_with_other_partitions(
    events, rabbitmq_url, stream_database, run_feed, declared
):
    position = await append_one(events, "order-1", placed())
    async with run_feed(stream_feed(partitions=3)):
        await wait_for_feed(stream_database, position)
    async with stream_database.transaction() as tx:
        await feed_actions.rewind(tx, STREAM_ORDERS, 0, OPERATOR)
    async with run_feed(stream_feed(partitions=declared)) as emitted:
        (stopped,) = await emitted.wait_for(FeedStopped)
    assert stopped.position == position
    assert f"has 3 partitions, and the feed declares {declared}" in stopped.problem
    assert "saga-engine feeds retry orders --sink stream" in stopped.problem
    async with stream_database.transaction() as tx:
        await feed_actions.retry(tx, STREAM_ORDERS, OPERATOR)
    async with run_feed(stream_feed(partitions=3)):
        await wait_for_feed(stream_database, position)


async def test_a_stream_with_one_partition_is_not_taken_for_several(
    events, rabbitmq_url, stream_database, run_feed
):
    position = await append_one(events, "order-1", placed())
    async with raw_channel(rabbitmq_url) as channel:
        await channel.queue_declare("orders", durable=True, arguments={"x-queue-type": "stream"})
    async with run_feed(stream_feed(partitions=3)) as emitted:
        (stopped,) = await emitted.wait_for(FeedStopped)
    assert stopped.position == position
    assert "has 1 partition, and the feed declares 3" in stopped.problem


async def test_a_super_stream_with_one_partition_is_not_taken_for_a_stream(rabbitmq_url, open_sink):
    async with raw_channel(rabbitmq_url) as channel:
        await channel.queue_declare("orders-0", durable=True, arguments={"x-queue-type": "stream"})
    async with open_sink() as sink:
        await sink.resume(0)
        assert await sink.publish([]) == []
        event = order_event(1)
        assert await sink.publish([event]) == [PublishOutcome.UNPUBLISHABLE]
        problem = sink.explain(event, PublishOutcome.UNPUBLISHABLE)
        assert "is a super stream with the partition 'orders-0'" in problem


async def test_partitions_of_a_start_that_was_cut_off_are_completed(
    events, rabbitmq_url, stream_database, run_feed
):
    """The first one is made last."""
    position = await append_one(events, "order-1", placed())
    async with raw_channel(rabbitmq_url) as channel:
        for name in THREE[1:]:
            arguments = {"x-queue-type": "stream", "x-max-age": "7D"}
            await channel.queue_declare(name, durable=True, arguments=arguments)
    async with run_feed(stream_feed(partitions=3)):
        await wait_for_feed(stream_database, position)
    await stored_messages(rabbitmq_url, *THREE, count=1)


async def test_another_node_is_asked_when_the_first_one_is_down(stream_settings, open_sink):
    two_nodes = stream_settings["broker_url"].replace("@", "@127.0.0.1:1,")
    stream_settings["broker_url"] = two_nodes
    async with open_sink(partitions=3) as sink:
        await sink.resume(0)
        assert "RabbitMQ at 127.0.0.1:1" in sink.problem
        assert await sink.publish([order_event(1)]) == [PublishOutcome.CONFIRMED]
        assert sink.problem is None


async def test_a_stream_that_differs_is_shown_and_not_changed(rabbitmq_url, open_sink):
    async with raw_channel(rabbitmq_url) as channel:
        for name in THREE:
            arguments = {"x-queue-type": "stream", "x-max-age": "12h"}
            await channel.queue_declare(name, durable=True, arguments=arguments)
    async with open_sink(
        partitions=3, max_age=timedelta(days=7), max_bytes=10**9, segment_bytes=10**8
    ) as sink:
        await sink.resume(0)
        assert sink.problem is None
        differences = dict(each.split(": ", 1) for each in sink.differences)
        assert [*differences] == ["max_age", "max_bytes", "segment_bytes"]
        assert "declares 7D, and RabbitMQ has 12h for orders-0, orders-1" in differences["max_age"]
        assert "declares 1000000000, and RabbitMQ has no limit" in differences["max_bytes"]
        assert await sink.publish([order_event(1)]) == [PublishOutcome.CONFIRMED]
        await sink.resume(0)
        assert len(sink.differences) == 3
    async with open_sink(partitions=3, max_age=timedelta(hours=12)) as sink:
        await sink.resume(0)
        assert [each.split(":")[0] for each in sink.differences] == ["segment_bytes"]


async def test_a_stream_is_made_as_it_is_declared(open_sink):
    declared = {"max_age": timedelta(minutes=90), "max_bytes": 10**9, "segment_bytes": 10**8}
    for _ in range(2):
        async with open_sink(partitions=3, **declared) as sink:
            await sink.resume(0)
            assert (sink.problem, sink.differences) == (None, ())
    async with open_sink(partitions=3, max_age=timedelta(seconds=90), segment_bytes=10**7) as sink:
        await sink.resume(0)
        found = [each.partition(" for ")[0] for each in sink.differences]
    assert found == [
        "max_age: the feed declares 90s, and RabbitMQ has 90m",
        "max_bytes: the feed declares no limit, and RabbitMQ has 1000000000",
        "segment_bytes: the feed declares 10000000, and RabbitMQ has 100000000",
    ]


async def test_something_else_of_that_name_is_named(rabbitmq_url, open_sink):
    async with raw_channel(rabbitmq_url) as channel:
        await channel.queue_declare("orders", durable=True)
    async with open_sink() as sink:
        await sink.resume(0)
        assert "The stream 'orders' exists and is something else" in sink.problem
        assert await sink.publish([order_event(1)]) == [PublishOutcome.UNKNOWN]


async def test_a_stream_that_is_deleted_is_not_made_again_silently(rabbitmq_url, open_sink):
    """What it had would be missing, and no consumer would know."""
    async with open_sink(partitions=3) as sink:
        await sink.resume(0)
        assert await sink.publish([order_event(1)]) == [PublishOutcome.CONFIRMED]
        deleted = THREE[partition_of("order-o-1", 3)]
        async with raw_channel(rabbitmq_url) as channel:
            await channel.queue_delete(deleted)
        outcomes = await sink.publish([order_event(2)])
        while f"Stream {deleted!r} is gone" not in (sink.problem or ""):
            outcomes = await sink.publish([order_event(2)])
        assert outcomes == [PublishOutcome.UNKNOWN]
        assert "saga-engine feeds rewind orders --sink stream --to 0" in sink.problem


async def test_a_rewound_feed_makes_a_deleted_stream_again(
    events, rabbitmq_url, stream_database, run_feed
):
    await append_orders(events, 3)
    position = await events.position()
    async with run_feed(stream_feed(partitions=3)):
        await wait_for_feed(stream_database, position)
        async with raw_channel(rabbitmq_url) as channel:
            for name in THREE:
                await channel.queue_delete(name)
        async with stream_database.transaction() as tx:
            await feed_actions.rewind(tx, STREAM_ORDERS, 0, OPERATOR)
        await wait_for_feed(stream_database, position)
    expected = await every_event(events)
    (await stored_messages(rabbitmq_url, *THREE, count=len(expected))).check(expected)
