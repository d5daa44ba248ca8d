"""A partition has one owner, which continues at its offset."""

import pytest

from saga_engine.events.consumers import consumer_table
from saga_engine.events.consumers.consumer_table import Holder, PartitionKey, Progress
from tests.kit.consumers import BILLING, consumer_database


@pytest.fixture
async def database(event_url):
    async with consumer_database(event_url) as database:
        yield database


async def register(database, source="stream orders", partitions=2):
    async with database.transaction() as tx:
        await consumer_table.register(tx, "billing", source, partitions)


async def acquire(database, owner, key=BILLING, lease=5.0, source="stream orders"):
    async with database.transaction() as tx:
        found = await consumer_table.acquire(tx, key, Holder(owner, source), lease)
    return None if found is None else found.next_offset or 0


async def save(database, offset, owner="a"):
    async with database.transaction() as tx:
        progress = Progress(next_offset=offset, applied=1)
        await consumer_table.save(tx, BILLING, progress, owner, 5.0)


async def test_partitions_are_registered_once(database):
    await register(database)
    await save(database, 7)
    await register(database, partitions=3)
    async with database.transaction() as tx:
        found = await consumer_table.read(tx, "billing")
    assert [(each.partition, each.next_offset) for each in found] == [(0, 7), (1, None), (2, None)]


async def test_another_source_begins_at_its_beginning(database):
    await register(database)
    await save(database, 7)
    await register(database, source="stream others")
    assert await acquire(database, "a", source="stream others") == 0


async def test_a_process_with_the_earlier_source_writes_nothing_when_it_is_changed(database):
    await register(database)
    assert await acquire(database, "old") == 0
    await register(database, source="stream others")
    async with database.transaction() as tx:
        assert not await consumer_table.lock(tx, BILLING, Holder("old", "stream orders"))
    assert await acquire(database, "old") is None
    assert await acquire(database, "new", source="stream others") == 0


async def test_a_partition_has_one_owner_until_its_lease_ends(database):
    await register(database)
    assert await acquire(database, "a", lease=0.0) == 0
    assert await acquire(database, "b") == 0
    assert await acquire(database, "a") is None
    assert await acquire(database, "a", PartitionKey("billing", 1)) == 0
    async with database.transaction() as tx:
        assert not await consumer_table.lock(tx, BILLING, Holder("a", "stream orders"))
        assert await consumer_table.lock(tx, BILLING, Holder("b", "stream orders"))
        await consumer_table.release(tx, "b")
    assert await acquire(database, "a") == 0


async def test_an_offset_is_kept_by_a_batch_that_has_none(database):
    await register(database)
    await acquire(database, "a")
    await save(database, 7)
    await save(database, None)
    assert await acquire(database, "a") == 7
