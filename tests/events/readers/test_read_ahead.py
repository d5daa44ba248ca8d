"""The next page of events is read while the one before it is applied."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from saga_engine.errors import SchemaMismatch
from saga_engine.events import Append, Events
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.event_store.log_page import LogFilter
from saga_engine.events.readers.event_source import EventSource
from saga_engine.events.readers.horizon_watch import HorizonWatch
from saga_engine.events.readers.read_ahead import ReadAhead
from saga_engine.events.readers.sql_event_store import SqlEventStore
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE
from tests.kit.event_database import connected, number_in, placed

PAGE = 4


@pytest.fixture
async def pages(events: Events, event_url: str) -> AsyncIterator[ReadAhead]:
    """Of ten events, so two are full and one is not."""
    await events.append(Append("order-1", [placed(n) for n in range(10)]))
    settings = Settings()
    async with Database(event_url, settings, EVENT_DATABASE) as database:
        async with database.transaction() as tx:
            log = await EventLog.load(tx)
        store = SqlEventStore(database)
        horizon = HorizonWatch(store, settings)
        await horizon.look()
        made = ReadAhead(EventSource(store, log, horizon, settings), LogFilter())
        yield made
        await made.close()


async def numbers(pages: ReadAhead, after: int) -> tuple[list[int], int]:
    page = await pages.read(after, PAGE)
    return [number_in(event) for event in page.events], page.position


async def test_a_full_page_is_followed_by_the_next_one_before_that_is_asked_for(
    pages: ReadAhead, event_url: str
):
    before = asyncio.all_tasks()
    first, position = await numbers(pages, 0)
    assert first == [0, 1, 2, 3]
    await asyncio.wait(asyncio.all_tasks() - before)
    async with connected(event_url) as other:
        await other.execute("ALTER TABLE saga_engine.stream_event RENAME TO away")
    second, position = await numbers(pages, position)
    assert second == [4, 5, 6, 7]
    with pytest.raises(SchemaMismatch):
        await pages.read(position, PAGE)


async def test_all_pages_have_each_event_once(pages: ReadAhead):
    found, position = await numbers(pages, 0)
    while True:
        more, position = await numbers(pages, position)
        found += more
        if len(more) < PAGE:
            break
    assert found == [*range(10)]


async def test_a_page_that_is_not_full_is_the_last_one_to_read(pages: ReadAhead):
    before = asyncio.all_tasks()
    page = await pages.read(0, 11)
    assert len(page.events) == 10
    assert asyncio.all_tasks() == before


async def test_another_position_is_read_from_there(pages: ReadAhead):
    _, position = await numbers(pages, 0)
    assert (await numbers(pages, 0))[0] == [0, 1, 2, 3]
    assert (await numbers(pages, position + 1))[0] == [5, 6, 7, 8]


async def test_an_error_of_a_page_that_is_not_needed_is_not_reported(
    pages: ReadAhead, event_url: str, caplog: pytest.LogCaptureFixture
):
    before = asyncio.all_tasks()
    async with connected(event_url) as other:
        await numbers(pages, 0)
        await asyncio.wait(asyncio.all_tasks() - before)
        await other.execute("ALTER TABLE saga_engine.stream_event RENAME TO away")
        await numbers(pages, PAGE)
        await asyncio.wait(asyncio.all_tasks() - before)
    await pages.close()
    assert not caplog.records
