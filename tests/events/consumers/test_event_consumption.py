"""Published events take effect once and in order, from the exchange to the consumer's table."""

import aiormq
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.errors import ConfigurationError, DefinitionError, SchemaMismatch
from saga_engine.events import Consumer, from_queue
from saga_engine.events.consumers import consumer_actions
from saga_engine.events.consumers.event_consumption import EventConsumption
from saga_engine.events.consumers.received import Received
from saga_engine.events.readers.operator_audit import Operator
from saga_engine.protocol.topology import FEED, consumer_queue
from saga_engine.settings import Settings
from saga_engine.telemetry.events import ConsumerAcquired, ConsumerPartitionsFound
from tests.kit.connections import raw_channel
from tests.kit.consumers import (
    billing_consumer,
    check_effects,
    consumer_database,
    invoices,
    open_failures,
    running_consumers,
    stored_partition,
    stored_partitions,
    wait_for_invoices,
    write,
)
from tests.kit.events import EventRecorder
from tests.kit.feeds import every_event, order_feed, running_feeds, wait_for_feed
from tests.kit.programs import wait_until_true
from tests.kit.projections import append_orders
from tests.kit.read_model import Placed

EVENT = {
    "ce-specversion": "1.0",
    "ce-id": "7",
    "ce-source": "/shop",
    "ce-type": "order-placed",
    "ce-subject": "order-o-1",
}


@pytest.fixture
async def billing(event_url):
    """The database of the consumer: here that of the events, too."""
    async with consumer_database(event_url) as database:
        yield database


async def test_every_event_takes_effect_once_and_in_order(
    events, event_url, broker_url, feed_database, billing
):
    consumer = billing_consumer()
    async with running_consumers(event_url, [consumer], broker_url=broker_url):
        async with running_feeds(event_url, broker_url, [order_feed()]):
            await append_orders(events, 6)
            await wait_for_feed(feed_database, await events.position())
        expected = await every_event(events)
        await wait_for_invoices(billing, len(expected))
    await check_effects(billing, expected)
    stored = await stored_partition(billing)
    assert (stored.source, stored.next_offset, stored.owner) == (
        "queue saga.consumer.billing",
        None,
        None,
    )
    assert (stored.applied, stored.duplicates) == (len(expected), 0)


async def test_events_that_are_published_again_have_no_effect_and_are_counted(
    events, event_url, broker_url, feed_database, billing
):
    await append_orders(events, 3)
    expected = await every_event(events)
    consumer = billing_consumer(from_queue("twice", keys=["order.#"]))
    async with running_consumers(event_url, [consumer], broker_url=broker_url):
        async with running_feeds(event_url, broker_url, [order_feed(), order_feed("again")]):
            await wait_for_feed(feed_database, await events.position())
            await wait_for_feed(feed_database, await events.position(), "again")
        await wait_for_invoices(billing, len(expected))
        await wait_for_duplicates(billing, len(expected))
    await check_effects(billing, expected)


async def test_a_partition_that_is_added_is_consumed_too(source, event_url, billing):
    await source.create()
    consumer = billing_consumer(source.options)
    settings = {"consumer_partition_interval": 0.05, **source.settings}
    async with running_consumers(event_url, [consumer], **settings) as emitted:
        await source.publish(1)
        await wait_for_invoices(billing, 1)
        await source.add_partition()
        [found] = await emitted.wait_for(ConsumerPartitionsFound)
        assert found == ConsumerPartitionsFound(consumer="billing", partitions=(1,))
        await source.publish(2, partition=1)
        await wait_for_invoices(billing, 2)
    assert [each.next_offset for each in await stored_partitions(billing)] == [1, 1]
    assert len(emitted.matching(ConsumerPartitionsFound)) == 1


async def test_a_process_applies_no_more_partitions_at_once_than_allowed(
    source, event_url, billing
):
    await source.create()
    await source.add_partition()
    consumer = Consumer("billing", source=source.options)
    active, most = 0, 0

    @consumer.on(Placed)
    async def placed(event: Placed, received: Received, connection: AsyncConnection) -> None:
        nonlocal active, most
        active += 1
        most = max(most, active)
        await write(connection, received, event.customer, event.total)
        active -= 1

    await source.publish(*range(1, 11))
    await source.publish(*range(11, 21), partition=1)
    settings = {"consumer_concurrency": 1, "consumer_batch_size": 1, **source.settings}
    async with running_consumers(event_url, [consumer], **settings):
        await wait_for_invoices(billing, 20)
    assert most == 1


async def wait_for_duplicates(database, number):
    async def counted() -> bool:
        return bool((await stored_partition(database)).duplicates >= number)

    await wait_until_true(counted, interval=0.01)


async def test_a_queue_keeps_events_while_no_process_runs(
    events, event_url, broker_url, feed_database, billing
):
    async with running_consumers(event_url, [billing_consumer()], broker_url=broker_url):
        pass  # it has declared its queue
    async with running_feeds(event_url, broker_url, [order_feed()]):
        await append_orders(events, 2)
        await wait_for_feed(feed_database, await events.position())
    expected = await every_event(events)
    async with running_consumers(
        event_url, [billing_consumer()], broker_url=broker_url, consumer_batch_size=1
    ):
        await wait_for_invoices(billing, len(expected))
    await check_effects(billing, expected)


async def test_a_process_continues_when_another_one_ends(event_url, broker_url, billing):
    async with running_consumers(event_url, [billing_consumer()], broker_url=broker_url) as first:
        await first.wait_for_next(ConsumerAcquired)
        async with running_consumers(
            event_url, [billing_consumer()], broker_url=broker_url
        ) as second:
            owner = (await stored_partition(billing)).owner
            assert owner is not None
            assert not second.matching(ConsumerAcquired)
    async with running_consumers(event_url, [billing_consumer()], broker_url=broker_url) as third:
        await third.wait_for_next(ConsumerAcquired)
        assert (await stored_partition(billing)).owner not in (None, owner)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b"\xff\x00"),
        ({"ce-specversion": "1.0", "ce-id": "1", "ce-source": "x"}, b"{}"),
        (EVENT, b"{"),
        ({"ce-id": ["\0", {"\0": "\0"}]}, b""),
    ],
)
async def test_a_message_that_cannot_be_read_is_kept_and_the_next_one_takes_effect(
    event_url, broker_url, billing, headers, body
):
    async with running_consumers(event_url, [billing_consumer()], broker_url=broker_url):
        async with raw_channel(broker_url) as channel:
            await publish(channel, body, headers)
            await publish(channel, b'{"customer": "ada", "total": "1"}', EVENT)
        await wait_for_invoices(billing, 1)
    (failure,) = await open_failures(billing)
    assert failure.kind == "unreadable"
    assert [customer for _, _, customer in await invoices(billing)] == ["ada"]


async def publish(channel, body, headers):
    await channel.basic_publish(
        body,
        exchange=FEED,
        routing_key="order.order-placed",
        properties=aiormq.spec.Basic.Properties(headers=headers),
    )


async def test_another_source_is_refused_while_messages_of_the_earlier_one_are_kept(
    event_url, broker_url, billing
):
    async with running_consumers(event_url, [billing_consumer()], broker_url=broker_url):
        async with raw_channel(broker_url) as channel:
            await publish(channel, b"{", EVENT)
            await publish(channel, b'{"customer": "ada", "total": "1"}', EVENT)
        await wait_for_invoices(billing, 1)
    other = billing_consumer(from_queue("others"))
    with pytest.raises(ConfigurationError, match="keeps messages of queue saga"):
        async with running_consumers(event_url, [other], broker_url=broker_url):
            pass
    (failure,) = await open_failures(billing)
    async with billing.transaction() as tx:
        await consumer_actions.skip(tx, "billing", failure.id, Operator("mara", "tested"))
    async with running_consumers(event_url, [other], broker_url=broker_url):
        assert (await stored_partition(billing)).source == "queue others"


async def test_a_consumer_needs_event_tables_a_broker_and_a_queue_of_its_kind(
    database_url, event_url, broker_url, billing
):
    consumers = [billing_consumer()]
    with pytest.raises(ConfigurationError, match="BROKER_URL"):
        async with EventConsumption(consumers, event_url, Settings(), EventRecorder()):
            pass
    settings = Settings(broker_url=broker_url)
    with pytest.raises(SchemaMismatch, match="migrate --events"):
        async with EventConsumption(consumers, database_url, settings, EventRecorder()):
            pass
    with pytest.raises(DefinitionError, match="handles no event"):
        EventConsumption([Consumer("b", source=from_queue())], event_url, settings, EventRecorder())
    assert consumer_queue("billing") == "saga.consumer.billing"
