"""The ids of events."""

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import asyncpg
import pytest

from saga_engine.events import Append, Events
from saga_engine.events.event_store.event_log import EventLog
from tests.kit.event_database import connected, placed

LOG = EventLog(UUID("0198c0de-0000-7000-8000-000000000001"))
AT = datetime(2026, 11, 30, 12, 0, 0, 1, tzinfo=UTC)


def test_the_id_of_an_event_never_changes():
    """Consumers have stored it: this value is a contract."""
    assert LOG.event_id("order-1", 2, 0, AT) == UUID("5224b781-e30c-5f30-a60d-79df56448b79")


def test_the_id_does_not_depend_on_the_time_zone_of_the_reader():
    elsewhere = AT.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert LOG.event_id("order-1", 2, 0, elsewhere) == LOG.event_id("order-1", 2, 0, AT)


def test_events_that_differ_in_one_thing_have_different_ids():
    other = EventLog(UUID("0198c0de-0000-7000-8000-000000000002"))
    different = {
        LOG.event_id("order-1", 2, 0, AT),
        LOG.event_id("order-2", 2, 0, AT),
        LOG.event_id("order-1", 3, 0, AT),
        LOG.event_id("order-1", 2, 1, AT),
        LOG.event_id("order-1", 2, 0, AT + timedelta(microseconds=1)),
        other.event_id("order-1", 2, 0, AT),
    }
    assert len(different) == 6


async def test_the_ids_of_stored_events_are_made_of_the_id_of_their_log(
    events: Events, event_url: str
):
    await events.append(Append("order-1", [placed()]))
    async with connected(event_url) as connection:
        log = EventLog(await connection.fetchval("SELECT id FROM saga_engine.event_log"))
        at = await connection.fetchval("SELECT recorded_at FROM saga_engine.stream_event")
    assert [event.id async for event in events.read_all()] == [log.event_id("order-1", 1, 0, at)]


INSERT = """
INSERT INTO saga_engine.stream_event (stream, version, type, schema_version, data, metadata)
VALUES ('order-1', $1, 'order-placed', 1, $2, $3)"""


@pytest.mark.parametrize("metadata", ['{"tenant": "a"}', '{"actor": 1}', '{"actor": 1e400}'])
async def test_metadata_of_other_programs_is_ignored(events: Events, event_url: str, metadata: str):
    async with connected(event_url) as other:
        await other.execute(INSERT, 1, "{}", metadata)
    [event] = [event async for event in events.read_all()]
    assert (event.actor, event.correlation_id) == (None, None)


@pytest.mark.parametrize(
    ("column", "value"),
    [("metadata", "'[]'"), ("recorded_at", "'infinity'"), ("recorded_at", "'4000-01-01 BC'")],
)
async def test_a_row_that_no_driver_reads_is_refused(event_url: str, column: str, value: str):
    async with connected(event_url) as other:
        await other.execute(INSERT, 1, "{}", "{}")
        with pytest.raises(asyncpg.CheckViolationError):
            await other.execute(f"UPDATE saga_engine.stream_event SET {column} = {value}")
