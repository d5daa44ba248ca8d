"""Consumed events are known for as long as the setting says."""

from uuid import UUID

import pytest

from saga_engine.events.consumers import consumed_events
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE
from tests.kit.event_database import connected

KEYS = [UUID(int=n) for n in range(5)]
MAKE_OLD = "UPDATE saga_engine.consumed_event SET consumed_at = now() - interval '2 days'"


@pytest.fixture
async def database(event_url):
    async with Database(event_url, Settings(), EVENT_DATABASE) as database:
        yield database


async def test_events_are_known_to_the_consumer_that_has_consumed_them(database):
    async with database.transaction() as tx:
        await consumed_events.insert(tx, "billing", KEYS[:3])
        await consumed_events.insert(tx, "billing", [])
        assert await consumed_events.known(tx, "billing", KEYS[1:]) == set(KEYS[1:3])
        assert await consumed_events.known(tx, "other", KEYS) == set()


async def test_old_ids_are_removed_a_part_at_a_time(database, event_url, monkeypatch):
    monkeypatch.setattr(consumed_events, "PURGED_AT_ONCE", 2)
    async with database.transaction() as tx:
        await consumed_events.insert(tx, "billing", KEYS[:3])
    async with connected(event_url) as connection:
        await connection.execute(MAKE_OLD)
    async with database.transaction() as tx:
        await consumed_events.insert(tx, "billing", KEYS[3:])
        assert await consumed_events.purge(tx, "billing", 86_400)
        assert not await consumed_events.purge(tx, "billing", 86_400)
        assert await consumed_events.known(tx, "billing", KEYS) == set(KEYS[3:])
