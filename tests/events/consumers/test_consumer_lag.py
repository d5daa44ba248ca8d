"""How much waits for a consumer, in messages and in seconds, is known for each kind of source."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from saga_engine.events.consumers import consumer_lag, consumer_table
from saga_engine.events.consumers.consumer_table import PartitionKey
from saga_engine.events.consumers.interfaces import SourceLag
from saga_engine.events.consumers.source_opener import SourceOpener
from saga_engine.settings import Settings
from tests.kit.consumers import BILLING, billing_consumer, registered_consumer
from tests.kit.events import EventRecorder


@pytest.fixture
async def database(event_url):
    async with registered_consumer(event_url) as database:
        yield database


async def read(database):
    async with database.transaction() as tx:
        return (await consumer_lag.read(tx, "billing"))[BILLING]


async def test_what_waits_is_measured_from_the_offset_on(source):
    await source.create()
    async with AsyncExitStack() as stack:
        opener = SourceOpener(stack, Settings(**source.settings), EventRecorder())
        opened = (await opener.open_all([billing_consumer(source.options)]))["billing"]
        assert await opened.partition_count() == 1
        assert await opened.measure(0, None) == SourceLag(0, 0.0)
        await source.publish(1, 2, 3)
        for offset, expected in ((None, 3), (0, 3), (2, 1)):
            first, second = [await opened.measure(0, offset) for _ in range(2)]
            assert first is not None
            assert second is not None
            assert (first.messages, second.messages) == (expected, expected)
            assert 0 <= (first.seconds or 0) < (second.seconds or 0) < 60
        assert await opened.measure(0, 3) == SourceLag(0, 0.0)
        await source.delete()
        assert await opened.measure(0, 0) is None
        await source.create()
        assert await opened.measure(0, None) == SourceLag(0, 0.0)


async def test_the_time_of_a_lag_grows_while_no_process_measures(database):
    assert await read(database) == consumer_lag.StoredLag()
    async with database.transaction() as tx:
        await consumer_lag.save(tx, {BILLING: SourceLag(2, 1.5)})
    first, second = await read(database), await read(database)
    assert (first.messages, second.messages) == (2, 2)
    assert 1.5 < first.seconds < second.seconds
    async with database.transaction() as tx:
        await consumer_lag.save(tx, {BILLING: SourceLag(0, 0.0)})
    assert (await read(database)).seconds == 0


async def test_processes_that_measure_at_once_do_not_lock_each_other(database):
    async with database.transaction() as tx:
        await consumer_table.register(tx, "billing", "stream orders", 20)
        await consumer_lag.register(tx, "billing")
    keys = [PartitionKey("billing", number) for number in range(20)]

    async def save(chosen):
        for _ in range(20):
            async with database.transaction() as tx:
                await consumer_lag.save(tx, {key: SourceLag(1, None) for key in chosen})

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(save(keys))
        tasks.create_task(save(keys[::-1]))
    assert (await read(database)).messages == 1
