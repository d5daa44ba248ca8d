"""Snapshots of streams."""

from collections.abc import AsyncIterator

import pytest

from saga_engine.events.event_store import snapshot_table
from saga_engine.events.event_store.snapshot_table import StoredSnapshot
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE


@pytest.fixture
async def event_database(event_url: str) -> AsyncIterator[Database]:
    async with Database(event_url, Settings(), EVENT_DATABASE) as database:
        yield database


async def test_a_snapshot_is_read_unchanged(event_database: Database):
    snapshot = StoredSnapshot(7, {"total": 2.5, "items": ["é", None], "big": 2**63})
    async with event_database.transaction() as tx:
        await snapshot_table.write(tx, "order-1", "a", snapshot)
        assert await snapshot_table.read(tx, "order-1", "a") == snapshot
        assert await snapshot_table.read(tx, "order-2", "a") is None


async def test_a_snapshot_of_other_code_is_not_read(event_database: Database):
    async with event_database.transaction() as tx:
        await snapshot_table.write(tx, "order-1", "a", StoredSnapshot(7, {}))
        assert await snapshot_table.read(tx, "order-1", "b") is None


@pytest.mark.parametrize(("version", "kept"), [(6, 7), (8, 8)])
async def test_an_older_snapshot_does_not_replace_a_newer_one(
    event_database: Database, version: int, kept: int
):
    async with event_database.transaction() as tx:
        await snapshot_table.write(tx, "order-1", "a", StoredSnapshot(7, {}))
        await snapshot_table.write(tx, "order-1", "a", StoredSnapshot(version, {}))
        found = await snapshot_table.read(tx, "order-1", "a")
    assert found == StoredSnapshot(kept, {})


async def test_two_versions_of_the_code_keep_their_snapshots(event_database: Database):
    """Both run during a deployment, and neither replays the stream at each command."""
    async with event_database.transaction() as tx:
        for version in range(1, 9):
            await snapshot_table.write(
                tx, "order-1", "ab"[version % 2], StoredSnapshot(version, {})
            )
        found = [await snapshot_table.read(tx, "order-1", each) for each in "ab"]
    assert found == [StoredSnapshot(8, {}), StoredSnapshot(7, {})]


async def test_snapshots_of_earlier_versions_of_the_code_are_deleted(event_database: Database):
    async with event_database.transaction() as tx:
        await snapshot_table.write(tx, "order-2", "a", StoredSnapshot(1, {}))
        for version, fingerprint in enumerate("abcd", 1):
            await snapshot_table.write(tx, "order-1", fingerprint, StoredSnapshot(version, {}))
        found = [await snapshot_table.read(tx, "order-1", each) for each in "abcd"]
        assert await snapshot_table.read(tx, "order-2", "a")
    assert found == [None, None, StoredSnapshot(3, {}), StoredSnapshot(4, {})]


async def test_a_snapshot_keeps_the_order_of_keys(event_database: Database):
    snapshot = StoredSnapshot(7, {"may": 1e16, "april": -0.0})
    async with event_database.transaction() as tx:
        await snapshot_table.write(tx, "order-1", "a", snapshot)
        found = await snapshot_table.read(tx, "order-1", "a")
    assert repr(found and found.state) == repr(snapshot.state)
