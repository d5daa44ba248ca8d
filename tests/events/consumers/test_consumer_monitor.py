"""How far consumers are is measured, and one that does not move is a problem."""

from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from saga_engine.events.consumers import consumer_lag, consumer_table
from saga_engine.events.consumers.consumer_monitor import ConsumerMonitor
from saga_engine.events.consumers.source_opener import SourceOpener
from saga_engine.protocol.topology import FEED
from saga_engine.settings import Settings
from saga_engine.telemetry.events import ConsumersMeasured
from tests.kit.connections import raw_channel
from tests.kit.consumers import (
    BILLING,
    QUEUE,
    applying,
    billing_consumer,
    message_of,
    order,
    registered_consumer,
)
from tests.kit.event_database import connected
from tests.kit.events import EventRecorder

ONE_BROKER = pytest.mark.parametrize("broker_url", ["development"], indirect=True)


@pytest.fixture
async def database(event_url):
    async with registered_consumer(event_url) as database:
        yield database


@pytest.fixture
async def sources(broker_url):
    async with AsyncExitStack() as stack:
        opener = SourceOpener(stack, Settings(broker_url=broker_url), EventRecorder())
        yield await opener.open_all([billing_consumer()])


async def publish_order(broker_url):
    """Publish an event, and wait until the queue has it."""
    async with raw_channel(broker_url) as channel:
        await channel.confirm_delivery()
        await channel.basic_publish(b"{}", exchange=FEED, routing_key="order.order-placed")


@dataclass
class OpenSources:
    """Of a process that consumes nothing."""

    sources: dict
    source_problems: dict = field(default_factory=dict)


def monitor(database, sources, emitted, problems=(), **settings):
    consumers = OpenSources(sources, dict(problems))
    return ConsumerMonitor(database, consumers, "process-1", Settings(**settings), emitted)


@ONE_BROKER
async def test_states_and_messages_are_counted(database, sources, broker_url):
    await publish_order(broker_url)
    async with applying(database, billing_consumer()) as (batches, _):
        await batches.apply([message_of({}, body=b""), order(1, "poison")])
    emitted = EventRecorder()
    await monitor(database, sources, emitted, {BILLING: "It is gone."}).measure()
    (measured,) = emitted.matching(ConsumersMeasured)
    assert measured.partitions == {
        ("billing", "active"): 0,
        ("billing", "paused"): 0,
        ("billing", "stopped"): 1,
    }
    assert (measured.waiting, measured.kept) == ({"billing": 1}, {"billing": 1})
    assert (measured.parked_streams, measured.without_owner) == ({"billing": 0}, {"billing": 0})
    assert (measured.unavailable, measured.lag_s) == ({"billing": 1}, {})
    async with database.transaction() as tx:
        assert (await consumer_lag.read(tx))[BILLING].messages == 1


@ONE_BROKER
async def test_a_partition_that_no_process_consumes_and_parked_streams_are_counted(
    database, sources, broker_url
):
    emitted = EventRecorder()
    watching = monitor(database, sources, emitted)
    await watching.measure()
    async with applying(database, billing_consumer(on_poison="park-stream")) as (batches, _):
        await batches.apply([order(1, "poison"), order(2)])
    await watching.measure()
    before, after = emitted.matching(ConsumersMeasured)
    assert (before.without_owner, before.parked_streams) == ({"billing": 1}, {"billing": 0})
    assert (after.without_owner, after.parked_streams) == ({"billing": 0}, {"billing": 1})


@ONE_BROKER
async def test_partitions_of_an_earlier_source_are_not_counted(database, sources):
    """They are owned by no process, and what waits there is not known."""
    async with database.transaction() as tx:
        await consumer_table.register(tx, "billing", "kafka orders", 3)
        await consumer_table.register(tx, "billing", QUEUE, 1)
    emitted = EventRecorder()
    await monitor(database, sources, emitted).measure()
    (measured,) = emitted.matching(ConsumersMeasured)
    assert measured.partitions["billing", "active"] == 1
    assert (measured.without_owner, measured.waiting) == ({"billing": 1}, {"billing": 0})


@ONE_BROKER
async def test_a_partition_that_does_not_move_although_messages_wait_is_a_problem(
    database, sources, broker_url
):
    watching = monitor(database, sources, EventRecorder(), projection_stall_timeout=0.001)
    await watching.measure()
    assert not watching.problem
    await publish_order(broker_url)
    for _ in range(2):
        await watching.measure()
    assert "consumer billing, partition 0, has consumed nothing for" in str(watching.problem)


@ONE_BROKER
async def test_a_consumer_whose_row_is_gone_is_a_problem(database, sources, event_url):
    async with connected(event_url) as connection:
        await connection.execute("DELETE FROM saga_engine.consumer")
    watching = monitor(database, sources, EventRecorder())
    await watching.measure()
    assert "consumer billing is no longer in the database" in str(watching.problem)
