"""A feed publishes each event at least once and in order, through faults of the broker."""

import pytest

from saga_engine.errors import ConfigurationError, DefinitionError, SchemaMismatch
from saga_engine.events import Append, EventData
from saga_engine.events.feeds import feed_actions, feed_table
from saga_engine.events.feeds.feed_failures import Resolution
from saga_engine.events.feeds.feed_publisher import FeedPublisher
from saga_engine.events.feeds.feed_table import FeedState
from saga_engine.events.readers.operator_audit import Operator
from saga_engine.protocol.message import PublishOutcome
from saga_engine.settings import Settings
from saga_engine.telemetry.events import (
    FeedAcquired,
    FeedStopped,
    InternalErrorCaught,
    MessagesPublished,
)
from tests.kit.broker_faults import abort_before_confirm, drop_confirm, nack
from tests.kit.connections import raw_channel
from tests.kit.event_database import connected
from tests.kit.events import EventRecorder
from tests.kit.feeds import (
    ORDERS,
    bind_queue,
    every_event,
    order_feed,
    receive_from,
    running_feeds,
    stop_orders,
    stored_feed,
    wait_for_feed,
)
from tests.kit.projections import append_one, append_orders, cancelled, placed

OPERATOR = Operator("mara", "tested")
INSERT = """
INSERT INTO saga_engine.stream_event (stream, version, type, schema_version, data, metadata)
VALUES ('order-1', 1, $1, 1, $2, $3)"""


@pytest.mark.parametrize("batch_size", [1, 7, 500])
async def test_every_event_is_published_in_the_order_of_its_stream(
    events, event_url, broker_url, feed_database, batch_size
):
    async with raw_channel(broker_url) as channel:
        await bind_queue(channel, "billing")
        received = await receive_from(channel, "billing")
        await append_orders(events, 6)
        feed = order_feed()
        async with running_feeds(event_url, broker_url, [feed], feed_batch_size=batch_size):
            await append_orders(events, 3, seed=1)
            await wait_for_feed(feed_database, await events.position())
        expected = await every_event(events)
        await received.wait_for(len(expected))
        received.check(expected)
        assert len(received.ids) == len(expected)
    assert (await stored_feed(feed_database)).skipped == 0


async def test_messages_survive_a_restart_of_the_broker(
    events, event_url, broker_url, feed_database
):
    async with raw_channel(broker_url) as channel:
        await bind_queue(channel, "billing")
        received = await receive_from(channel, "billing")
        position = await append_one(events, "order-1", placed())
        async with running_feeds(event_url, broker_url, [order_feed()]):
            await wait_for_feed(feed_database, position)
        await received.wait_for(1)
        assert received.messages[0].header.properties.delivery_mode == 2


async def test_a_feed_publishes_what_it_selects(events, event_url, broker_url, feed_database):
    async with raw_channel(broker_url) as channel:
        await bind_queue(channel, "billing")
        received = await receive_from(channel, "billing")
        for stream in ("order-1", "order-2", "account-1", "orders-1"):
            await append_one(events, stream, placed(), cancelled())
        feed = order_feed(streams=["order-*"], types=["order-placed"])
        async with running_feeds(event_url, broker_url, [feed]):
            await wait_for_feed(feed_database, await events.position())
        await received.wait_for(2)
        received.check(
            [
                each
                for each in await every_event(events)
                if each.stream in ("order-1", "order-2") and each.type == "order-placed"
            ]
        )


async def test_another_process_continues_after_the_last_confirmed_event(
    events, event_url, broker_url, feed_database
):
    async with raw_channel(broker_url) as channel:
        await bind_queue(channel, "billing")
        received = await receive_from(channel, "billing")
        for seed in range(4):
            async with running_feeds(event_url, broker_url, [order_feed()]) as emitted:
                (acquired,) = await emitted.wait_for(FeedAcquired)
                await append_orders(events, 5, seed=seed)
                await wait_for_feed(feed_database, await events.position())
            assert (await stored_feed(feed_database)).owner is None
            assert (acquired.position == 0) is (seed == 0)
        expected = await every_event(events)
        await received.wait_for(len(expected))
        received.check(expected)
        assert len(received.ids) == len(expected)


async def test_one_process_at_a_time_runs_a_feed(
    events, event_url, development_broker, feed_database
):
    url = development_broker.url
    async with running_feeds(event_url, url, [order_feed()]) as first:
        await first.wait_for(FeedAcquired)
        async with running_feeds(event_url, url, [order_feed()]) as second:
            await append_orders(events, 10)
            await wait_for_feed(feed_database, await events.position())
            assert not second.matching(FeedAcquired)
    async with running_feeds(event_url, url, [order_feed()]) as third:
        await third.wait_for(FeedAcquired)


async def test_a_feed_that_another_process_has_moved_continues_there(
    events, event_url, development_broker, feed_database
):
    async with raw_channel(development_broker.url) as channel:
        await bind_queue(channel, "billing")
        received = await receive_from(channel, "billing")
        await append_orders(events, 5)
        async with running_feeds(event_url, development_broker.url, [order_feed()]) as emitted:
            await wait_for_feed(feed_database, await events.position())
            async with feed_database.transaction() as tx:
                await feed_table.set_state(tx, ORDERS, FeedState.ACTIVE, 0)
            await emitted.wait_for(FeedAcquired, 2)
            await wait_for_feed(feed_database, await events.position())
        expected = await every_event(events)
        received.check(expected)
        assert len(received.ids) == 2 * len(expected)


async def test_events_that_no_queue_is_bound_for_are_skipped_and_counted(
    events, event_url, broker_url, feed_database
):
    async with raw_channel(broker_url) as channel:
        await bind_queue(channel, "billing", "*.order-placed")
        received = await receive_from(channel, "billing")
        await append_one(events, "order-1", placed(), cancelled(), placed())
        await append_one(events, "order-2", cancelled())
        async with running_feeds(event_url, broker_url, [order_feed()]) as emitted:
            await wait_for_feed(feed_database, await events.position())
        await received.wait_for(2)
        received.check([each for each in await every_event(events) if each.type == "order-placed"])
    assert (await stored_feed(feed_database)).skipped == 2
    unroutable = emitted.matching(MessagesPublished, outcome=PublishOutcome.UNROUTABLE)
    assert sum(each.messages for each in unroutable) == 2


@pytest.mark.parametrize("resolution", list(Resolution))
async def test_a_feed_stops_at_an_event_that_no_queue_is_bound_for(
    events, event_url, broker_url, feed_database, resolution
):
    async with raw_channel(broker_url) as channel:
        await bind_queue(channel, "billing", "*.order-placed")
        received = await receive_from(channel, "billing")
        await append_one(events, "order-1", placed(), cancelled(), placed())
        last = await append_one(events, "order-2", placed())
        feed = order_feed(unroutable="stop")
        async with running_feeds(event_url, broker_url, [feed]) as emitted:
            (stopped,) = await emitted.wait_for(FeedStopped)
            read = await every_event(events)
            assert stopped.position == read[1].position
            assert "No queue is bound to exchange 'saga.feed'" in stopped.problem
            assert "'order.order-cancelled'" in stopped.problem
            found = await stored_feed(feed_database)
            assert (found.state, found.position) == (FeedState.STOPPED, stopped.position - 1)
            await channel.queue_bind("billing", "saga.feed", "order.#")
            async with feed_database.transaction() as tx:
                if resolution is Resolution.RETRIED:
                    await feed_actions.retry(tx, ORDERS, OPERATOR)
                else:
                    await feed_actions.discard(tx, ORDERS, stopped.position, OPERATOR)
            await wait_for_feed(feed_database, last)
        expected = [
            each for each in read if each is not read[1] or resolution is Resolution.RETRIED
        ]
        await received.wait_for(len(expected))
        received.check(expected)


async def test_a_feed_stops_at_an_event_that_exceeds_a_limit(
    events, event_url, development_broker, feed_database
):
    """It is never skipped, because a consumer may wait for it."""
    await append_one(events, "order-1", placed(), EventData("order-noted", 1, {"text": "x" * 5000}))
    async with running_feeds(
        event_url, development_broker.url, [order_feed()], max_body_bytes=4000
    ) as emitted:
        (stopped,) = await emitted.wait_for(FeedStopped)
    assert "Its body has 5011 bytes; 4000 are allowed" in stopped.problem
    assert "max_body_bytes" in stopped.problem
    assert (await stored_feed(feed_database)).position == stopped.position - 1


async def test_a_feed_that_is_stopped_is_named_when_a_process_starts(
    events, event_url, development_broker, feed_database
):
    position = await append_one(events, "order-1", placed())
    await stop_orders(feed_database, position)
    async with running_feeds(event_url, development_broker.url, [order_feed()]) as emitted:
        (named,) = emitted.matching(FeedStopped)  # before it has looked at anything
    assert (named.feed, named.position, named.problem) == ("orders", position, "No queue.")
    assert named.next_command == "saga-engine feeds show orders --sink exchange"


HOSTILE = {
    "a number beyond a double": ("order-placed", "1e400", "{}", "cannot be read as JSON"),
    "data too deep to be written": (
        *("order-placed", "[" * 300 + "]" * 300, "{}"),
        "cannot be read as JSON",
    ),
    "data too deep to be read": (
        *("order-placed", "[" * 2000 + "]" * 2000, "{}"),
        "cannot be read as JSON",
    ),
    "a long type": ("x" * 300, "{}", "{}", "Its routing key has 306 bytes"),
    "a long actor": ("order-placed", "{}", f'{{"actor": "{"x" * 200_000}"}}', "Its headers have"),
}


@pytest.mark.parametrize("row", HOSTILE.values(), ids=[*HOSTILE])
async def test_a_row_of_another_program_stops_the_feeds_that_select_it_and_no_other(
    events, event_url, development_broker, feed_database, row
):
    async with raw_channel(development_broker.url) as channel:
        await bind_queue(channel, "billing")
        received = await receive_from(channel, "billing")
        *inserted, problem = row
        async with connected(event_url) as other:
            await other.execute(INSERT, *inserted)
        last = await append_one(events, "order-2", placed())
        feeds = [order_feed(), order_feed("others", streams=["order-2"])]
        async with running_feeds(event_url, development_broker.url, feeds) as emitted:
            (stopped,) = await emitted.wait_for(FeedStopped)
            await wait_for_feed(feed_database, last, "others")
            assert (stopped.feed, stopped.stream) == ("orders", "order-1")
            assert problem in stopped.problem
            async with feed_database.transaction() as tx:
                await feed_actions.discard(tx, ORDERS, stopped.position, OPERATOR)
            await wait_for_feed(feed_database, last)
        await received.wait_for(1)
        received.check([each for each in await every_event(events) if each.position == last])
        assert not emitted.matching(InternalErrorCaught)


async def test_a_refused_event_is_published_again_before_the_next_of_its_stream(
    events, event_url, development_broker, feed_database
):
    async with raw_channel(development_broker.url) as channel:
        await bind_queue(channel, "billing")
        received = await receive_from(channel, "billing")
        refused: set[str] = set()

        def first_time(message) -> bool:
            is_first = message.properties.message_id not in refused
            refused.add(message.properties.message_id)
            return is_first and len(refused) % 3 == 0

        development_broker.faults.on_publish(first_time, nack, max_count=1000)
        await append_orders(events, 20)
        async with running_feeds(event_url, development_broker.url, [order_feed()]) as emitted:
            await wait_for_feed(feed_database, await events.position())
        assert emitted.matching(MessagesPublished, outcome=PublishOutcome.NACKED)
        expected = await every_event(events)
        received.check(expected)
        assert len(received.ids) == len(expected)


async def test_a_position_is_saved_only_after_the_events_up_to_it_are_confirmed(
    events, event_url, development_broker, feed_database
):
    """A process that is killed before the confirm must not have passed the event."""
    url = development_broker.url
    async with raw_channel(url) as channel:
        await bind_queue(channel, "billing")
        received = await receive_from(channel, "billing")
        development_broker.faults.on_publish(lambda _: True, drop_confirm)
        last = await append_one(events, "order-1", placed())
        async with running_feeds(event_url, url, [order_feed()], broker_confirm_timeout=2.0):
            await received.wait_for(1)
            assert (await stored_feed(feed_database)).position < last
            await wait_for_feed(feed_database, last)
        assert len(received.ids) == 2


async def test_events_that_were_not_confirmed_are_published_again_with_the_same_id(
    events, event_url, development_broker, feed_database
):
    async with raw_channel(development_broker.url) as channel:
        await bind_queue(channel, "billing")
        received = await receive_from(channel, "billing")
        development_broker.faults.on_publish(
            lambda message: message.routing_key == "order.order-cancelled",
            drop_confirm,
            max_count=2,
        )
        await append_one(events, "order-1", placed(), cancelled(), placed())
        last = await append_one(events, "order-2", placed())
        async with running_feeds(
            event_url, development_broker.url, [order_feed()], broker_confirm_timeout=0.3
        ) as emitted:
            await wait_for_feed(feed_database, last)
        assert len(emitted.matching(MessagesPublished, outcome=PublishOutcome.UNKNOWN)) == 2
        received.check(await every_event(events))
        assert len(received.ids) == 6


async def test_a_feed_goes_on_after_its_connection_was_lost(
    events, event_url, development_broker, feed_database
):
    async with raw_channel(development_broker.url) as channel:
        await bind_queue(channel, "billing")
        received = await receive_from(channel, "billing")
        rule = development_broker.faults.on_publish(
            lambda message: message.routing_key == "order.order-cancelled",
            abort_before_confirm,
            max_count=3,
        )
        await append_orders(events, 10)
        async with running_feeds(event_url, development_broker.url, [order_feed()]):
            await wait_for_feed(feed_database, await events.position())
        assert rule.fired_count == 3
        received.check(await every_event(events))


async def test_a_feed_keeps_its_lease_while_it_waits_for_confirms(
    events, event_url, development_broker, feed_database
):
    async with raw_channel(development_broker.url) as channel:
        await bind_queue(channel, "billing")
    development_broker.faults.on_publish(lambda _: True, drop_confirm)
    last = await append_one(events, "order-1", placed())
    url, settings = development_broker.url, {"broker_confirm_timeout": 2.0}
    async with running_feeds(event_url, url, [order_feed()], **settings) as first:
        await first.wait_for(FeedAcquired)
        async with running_feeds(event_url, url, [order_feed()], **settings) as second:
            await first.wait_for(MessagesPublished, outcome=PublishOutcome.UNKNOWN)
            await wait_for_feed(feed_database, last)
            assert not second.matching(FeedAcquired)


@pytest.mark.rabbitmq
async def test_a_feed_waits_for_a_full_queue_and_loses_no_event(
    events, event_url, rabbitmq_url, feed_database
):
    """A queue of two messages, from which one at a time is taken."""
    limits = {"x-max-length": 2, "x-overflow": "reject-publish", "x-queue-type": "classic"}
    async with raw_channel(rabbitmq_url) as channel:
        await bind_queue(channel, "billing", arguments=limits)
        await append_orders(events, 4)
        expected = await every_event(events)
        async with running_feeds(event_url, rabbitmq_url, [order_feed()]) as emitted:
            await emitted.wait_for(MessagesPublished, outcome=PublishOutcome.NACKED)
            received = await receive_from(channel, "billing")
            await wait_for_feed(feed_database, await events.position())
        await received.wait_for(len(expected))
        received.check(expected)


async def test_a_database_without_event_tables_is_refused(database_url, development_broker):
    with pytest.raises(SchemaMismatch, match="saga-engine migrate --events"):
        async with running_feeds(database_url, development_broker.url, [order_feed()]):
            pass


async def test_feeds_that_break_a_rule_are_refused(event_url):
    with pytest.raises(DefinitionError, match="is also declared at"):
        FeedPublisher([order_feed(), order_feed()], event_url, Settings(), EventRecorder())


async def test_a_feed_to_the_exchange_needs_a_broker(event_url):
    with pytest.raises(ConfigurationError, match="SAGA_ENGINE_BROKER_URL"):
        FeedPublisher([order_feed()], event_url, Settings(), EventRecorder())


async def test_feeds_do_not_wait_for_one_that_has_stopped(
    events, event_url, development_broker, feed_database
):
    async with raw_channel(development_broker.url) as channel:
        await bind_queue(channel, "billing", "*.order-placed")
        await append_one(events, "order-1", cancelled())
        last = await append_one(events, "order-1", placed())
        feeds = [order_feed(unroutable="stop"), order_feed("others")]
        async with running_feeds(event_url, development_broker.url, feeds) as emitted:
            await emitted.wait_for(FeedStopped, feed="orders")
            await wait_for_feed(feed_database, last, "others")


async def test_many_streams_are_one_write(events, event_url, development_broker, feed_database):
    """Otherwise an event would cost a round trip."""
    streams = [Append(f"order-{n}", [placed(), placed()]) for n in range(100)]
    await events.append(*streams)
    async with running_feeds(event_url, development_broker.url, [order_feed()]) as emitted:
        await wait_for_feed(feed_database, await events.position())
    assert [each.messages for each in emitted.matching(MessagesPublished)] == [100, 100]
