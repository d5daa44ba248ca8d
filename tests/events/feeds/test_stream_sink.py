"""A feed stores each event in its stream once and in order."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
import rstream

from saga_engine.events.feeds import feed_actions, feed_table
from saga_engine.events.feeds.feed_table import FeedState
from saga_engine.events.feeds.stream_message import partition_of
from saga_engine.events.readers.operator_audit import Operator
from saga_engine.events.readers.owned_loop import NotOwner
from saga_engine.postgres.statement import text
from saga_engine.protocol.message import PublishOutcome
from saga_engine.telemetry.events import FeedAcquired, FeedStopped
from tests.kit.connections import raw_channel, wait_until
from tests.kit.event_database import connected
from tests.kit.feeds import every_event, order_event, stored_feed, wait_for_feed
from tests.kit.projections import append_one, append_orders, placed
from tests.kit.proxy import running_proxy
from tests.kit.streams import (
    STREAM_ORDERS,
    THREE,
    reading_streams,
    stored_messages,
    stream_feed,
)

pytestmark = pytest.mark.rabbitmq

DOCUMENT = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text()
OPERATOR = Operator("mara", "tested")
INSERT = """
INSERT INTO saga_engine.stream_event (stream, version, type, schema_version, data, metadata)
VALUES ('order-1', 1, 'order-placed', 1, $1, '{}')"""


@pytest.mark.parametrize(("partitions", "batch_size"), [(1, 7), (3, 500)])
async def test_every_event_is_stored_once_in_the_order_of_its_stream(
    events, rabbitmq_url, stream_database, run_feed, partitions, batch_size
):
    await append_orders(events, 6)
    names = ("orders",) if partitions == 1 else THREE
    async with run_feed(stream_feed(partitions=partitions), feed_batch_size=batch_size):
        await append_orders(events, 3, seed=1)
        await wait_for_feed(stream_database, await events.position())
    expected = await every_event(events)
    reader = await stored_messages(rabbitmq_url, *names, count=len(expected))
    reader.check(expected)
    for partition, message in reader.messages:
        headers: Any = message.header.properties.headers
        assert names[partition_of(headers["cloudEvents_subject"], partitions)] == partition


async def test_a_copy_of_the_database_without_its_last_positions_gets_another_producer(
    events, event_url, rabbitmq_url, stream_database, run_feed
):
    """As from a snapshot of its disk: neither the timeline nor the system is another one."""
    first = await append_one(events, "order-1", placed())
    await append_one(events, "order-2", placed(), placed())
    lost = await every_event(events)
    async with run_feed(stream_feed()):
        await wait_for_feed(stream_database, await events.position())
    async with connected(event_url) as other:
        await other.execute("DELETE FROM saga_engine.stream_event WHERE position > $1", first)
        await other.execute("SELECT setval('saga_engine.event_position', $1)", first)
        await other.execute("UPDATE saga_engine.feed SET position = $1", first)
    async with run_feed(stream_feed()) as emitted:
        await emitted.wait_for(FeedAcquired)
        await append_one(events, "order-3", placed(), placed())
        await wait_for_feed(stream_database, await events.position())
    kept = await every_event(events)
    expected = {str(each.id) for each in [*lost, *kept]}
    reader = await stored_messages(rabbitmq_url, "orders", count=len(expected))
    assert set(reader.ids) == expected


async def test_a_copy_is_noticed_although_rabbitmq_answers_after_new_events_were_appended(
    stream_database, open_sink, stream_settings
):
    """Positions that RabbitMQ has are drawn again between the resume of the feed and its answer."""
    async with open_sink() as original:
        await original.resume(0)
        assert await original.publish([order_event(990)]) == [PublishOutcome.CONFIRMED]
    await set_last_drawn(stream_database, 900)
    async with running_proxy(stream_settings["broker_stream_url"]) as proxy:
        stream_settings["broker_stream_url"] = proxy.url
        async with open_sink() as copy:
            await resume_without_answer(copy, proxy)
            await set_last_drawn(stream_database, 1_000)
            proxy.resume()
            with pytest.raises(NotOwner):
                await copy.publish([order_event(950)])
            await copy.resume(0)
            assert await copy.publish([order_event(950)]) == [PublishOutcome.CONFIRMED]
    async with reading_streams(stream_settings["broker_url"], "orders") as reader:
        await wait_until(lambda: len(reader.ids) == 2)


async def test_a_process_without_events_changes_nothing_of_the_producer(
    stream_database, open_sink, stream_settings
):
    """It may not be the owner any more: another one has published what it does not know of."""
    await set_last_drawn(stream_database, 900)
    async with running_proxy(stream_settings["broker_stream_url"]) as proxy, open_sink() as owner:
        stream_settings["broker_stream_url"] = proxy.url
        async with open_sink() as former:
            await resume_without_answer(former, proxy)
            await set_last_drawn(stream_database, 1_000)
            await owner.resume(0)
            assert await owner.publish([order_event(950)]) == [PublishOutcome.CONFIRMED]
            proxy.resume()
            await former.publish(())
            assert former.problem is None
        assert await owner.publish([order_event(960)]) == [PublishOutcome.CONFIRMED]


async def resume_without_answer(sink, proxy):
    proxy.pause()
    await sink.resume(0)
    assert sink.problem == "RabbitMQ did not answer in time."


async def set_last_drawn(database, position):
    async with database.transaction() as tx:
        await tx.execute(
            text("SELECT setval('saga_engine.event_position', :last)"), {"last": position}
        )


async def test_an_event_that_is_published_again_is_stored_once(
    events, rabbitmq_url, stream_database, run_feed
):
    """As after a crash between the confirms and the position."""
    await append_orders(events, 5)
    async with run_feed(stream_feed(partitions=3)):
        await wait_for_feed(stream_database, await events.position())
    async with stream_database.transaction() as tx:
        await feed_table.set_state(tx, STREAM_ORDERS, FeedState.ACTIVE, 0)
    last = await append_one(events, "order-new", placed())
    async with run_feed(stream_feed(partitions=3)) as emitted:
        (acquired,) = await emitted.wait_for(FeedAcquired)
        assert acquired.position == 0
        await wait_for_feed(stream_database, last)
    expected = await every_event(events)
    (await stored_messages(rabbitmq_url, *THREE, count=len(expected))).check(expected)


async def test_a_rewound_feed_stores_the_events_again_with_their_ids(
    events, rabbitmq_url, stream_database, run_feed
):
    await append_orders(events, 3)
    position = await events.position()
    expected = await every_event(events)
    async with run_feed(stream_feed()):
        await wait_for_feed(stream_database, position)
        async with stream_database.transaction() as tx:
            await feed_actions.rewind(tx, STREAM_ORDERS, 0, OPERATOR)
        await wait_for_feed(stream_database, position)
    async with reading_streams(rabbitmq_url, "orders") as reader:
        await wait_until(lambda: len(reader.ids) == 2 * len(expected))
        reader.check(expected, is_once=False)


DOCUMENTED_PERMISSIONS = (
    ("^orders(-[0-9]+)?$", "^orders(-[0-9]+)?$", "^orders$"),
    ("^$", "^orders(-[0-9]+)?$", "^$"),
)


async def test_a_permission_that_a_user_needs_is_named(rabbitmq_url, open_sink, publisher_user):
    await publisher_user("", "", ".*")
    async with open_sink() as sink:
        await sink.resume(0)
        assert "stream 'orders' does not exist and this user may not declare it" in sink.problem
        async with raw_channel(rabbitmq_url) as channel:
            arguments = {"x-queue-type": "stream"}
            await channel.queue_declare("orders", durable=True, arguments=arguments)
        await sink.resume(0)
        assert "This user may not publish to stream 'orders'" in sink.problem


async def test_a_user_with_the_documented_permissions_makes_a_stream_or_uses_it(
    open_sink, publisher_user
):
    for number, permissions in enumerate(DOCUMENTED_PERMISSIONS):
        assert "|".join(f" `{each}` " for each in permissions) in DOCUMENT
        await publisher_user(*permissions)
        async with open_sink(partitions=3) as sink:
            await sink.resume(0)
            assert sink.problem is None
            outcomes = await sink.publish([order_event(number + 1)])
            assert outcomes == [PublishOutcome.CONFIRMED]


async def test_events_after_one_that_cannot_be_published_wait_for_it(
    events, event_url, rabbitmq_url, stream_database, run_feed
):
    """Its id is lower than theirs: RabbitMQ would drop it afterwards."""
    async with connected(event_url) as other:
        await other.execute(INSERT, orjson.dumps({"text": "x" * 1_100_000}).decode())
    last = await append_one(events, "order-2", placed())
    async with run_feed(stream_feed()) as emitted:
        (stopped,) = await emitted.wait_for(FeedStopped)
        assert "more than a frame of RabbitMQ's stream protocol holds" in stopped.problem
        assert "stream.frame_max" in stopped.problem
        assert (await stored_feed(stream_database)).position == stopped.position - 1
        async with stream_database.transaction() as tx:
            await feed_actions.discard(tx, STREAM_ORDERS, stopped.position, OPERATOR)
        await wait_for_feed(stream_database, last)
    await stored_messages(rabbitmq_url, "orders", count=1)


async def test_data_that_cannot_be_read_stops_the_feed(event_url, stream_database, run_feed):
    async with connected(event_url) as other:
        await other.execute(INSERT, "1e400")
    async with run_feed(stream_feed()) as emitted:
        (stopped,) = await emitted.wait_for(FeedStopped)
    assert "cannot be read as JSON" in stopped.problem


async def test_a_client_of_the_stream_protocol_reads_the_attributes(
    events, rabbitmq, stream_database, run_feed, stream_settings
):
    """As docs/protocol.md says, with another library than that of the AMQP consumers."""
    position = await append_one(events, "order-1", placed("ada"))
    async with run_feed(stream_feed()):
        await wait_for_feed(stream_database, position)
    received: asyncio.Queue[Any] = asyncio.Queue()
    consumer = rstream.Consumer(
        "127.0.0.1",
        rabbitmq.stream_port,
        vhost=stream_settings["broker_url"].rpartition("/")[2],
        username="guest",
        password="guest",
    )
    await consumer.start()
    await consumer.subscribe(
        "orders",
        lambda message, _: received.put_nowait(message),
        decoder=rstream.amqp_decoder,
        offset_specification=rstream.ConsumerOffsetSpecification(rstream.OffsetType.FIRST, None),
    )
    async with asyncio.timeout(30):
        message = await received.get()
    await consumer.close()
    (event,) = await every_event(events)
    attributes = {
        key.decode(): value.decode() for key, value in message.application_properties.items()
    }
    assert attributes["cloudEvents_id"] == str(event.id)
    assert attributes["cloudEvents_type"] == "order-placed"
    assert attributes["cloudEvents_subject"] == "order-1"
    assert attributes["cloudEvents_sequence"] == f"{event.position:019}"
    assert message.properties.content_type == b"application/json"
    assert orjson.loads(bytes(message.body)) == event.data
