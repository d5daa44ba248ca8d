"""A partition has one owner, which continues at its offset."""

from uuid import UUID

import pytest

from saga_engine.events.consumers import consumer_table
from saga_engine.events.consumers.consumer_table import Holder, PartitionKey, Progress
from saga_engine.events.consumers.interfaces import StartPoint
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
    return None if found is None else found.start.offset or 0


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


async def test_the_message_before_the_offset_is_known_until_an_operator_chooses_another(database):
    holder = Holder("a", "stream orders")
    await register(database)
    await acquire(database, "a")
    async with database.transaction() as tx:
        progress = Progress(next_offset=7, last_message=UUID(int=6))
        await consumer_table.save(tx, BILLING, progress, "a", 5.0)
        await consumer_table.save(tx, BILLING, Progress(), "a", 5.0)
        known = await consumer_table.acquire(tx, BILLING, holder, 5.0)
        await consumer_table.set_offset(tx, BILLING, 3)
        chosen = await consumer_table.acquire(tx, BILLING, holder, 5.0)
    assert known
    assert chosen
    assert known.start == StartPoint(7, UUID(int=6))
    assert chosen.start == StartPoint(3)


async def test_partitions_that_are_added_replace_those_of_a_larger_earlier_source(database):
    """They would belong to no process of the source that the consumer has now."""
    async with database.transaction() as tx:
        await consumer_table.register(tx, "billing", "stream others", 3)
        await consumer_table.register(tx, "billing", "stream orders", 1)
        await consumer_table.add(tx, "billing", "stream orders", 2)
        found = await consumer_table.read(tx, "billing")
    assert [each.source for each in found] == ["stream orders", "stream orders", "stream others"]


async def test_partitions_that_are_added_keep_the_others_and_another_source(database):
    """A process of the earlier release finds more partitions of a source that was changed."""
    await register(database)
    await acquire(database, "a")
    await save(database, 7)
    async with database.transaction() as tx:
        await consumer_table.add(tx, "billing", "stream orders", 3)
        await consumer_table.add(tx, "billing", "stream others", 4)
        found = await consumer_table.read(tx, "billing")
    assert [(each.source, each.next_offset) for each in found] == [
        ("stream orders", 7),
        ("stream orders", None),
        ("stream orders", None),
    ]
