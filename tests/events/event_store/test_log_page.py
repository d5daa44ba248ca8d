"""Pages of all events: bounded, complete up to their position, and in order."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from saga_engine.errors import InvalidInput, StoreUnavailable
from saga_engine.events import Append, EventData, Events
from saga_engine.events.event_store import positions
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.event_store.log_page import LogFilter, LogPage, read_page
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE
from tests.kit.event_database import connected, placed
from tests.kit.wallet import Deposit, Deposited

EVERYTHING = LogFilter()
RARE = LogFilter.create(["order-rare"], None)


@pytest.fixture
async def event_database(event_url: str) -> AsyncIterator[Database]:
    async with Database(event_url, Settings(), EVENT_DATABASE) as database:
        yield database


async def pages(database: Database, log_filter: LogFilter, **limits: int) -> list[LogPage]:
    """All pages up to the horizon."""
    settings = Settings.model_construct(**{**dict(Settings()), **limits})
    found: list[LogPage] = []
    async with database.transaction() as tx:
        log, after = await EventLog.load(tx), 0
        horizon = await positions.horizon(tx)
        while after < horizon:
            page = await read_page(tx, log, log_filter, (after, horizon), settings)
            assert page.position > after
            found.append(page)
            after = page.position
    return found


async def test_a_page_has_a_limited_number_of_events(events: Events, event_database: Database):
    await events.append(Append("order-1", [placed()] * 10))
    found = await pages(event_database, EVERYTHING, event_batch_size=4)
    assert [len(page.events) for page in found] == [4, 4, 2]
    assert [page.position for page in found] == [4, 8, 10]


async def test_a_page_has_a_limited_number_of_bytes(events: Events, event_database: Database):
    await events.append(Append("order-1", [placed(text="x" * size) for size in (10, 10, 500, 10)]))
    found = await pages(event_database, EVERYTHING, event_batch_bytes=100)
    assert [len(page.events) for page in found] == [3, 1]
    assert [event.version for page in found for event in page.events] == [1, 2, 3, 4]


async def test_a_page_covers_a_limited_range_of_positions(events: Events, event_database: Database):
    rare = EventData("order-rare", 1, {})
    await events.append(Append("order-1", [*[placed()] * 24, rare, *[placed()] * 5]))
    found = await pages(event_database, RARE, event_window=10)
    assert [page.position for page in found] == [10, 20, 30]
    assert [event.position for page in found for event in page.events] == [25]


async def test_gaps_are_passed(events: Events, event_database: Database, event_url: str):
    async with connected(event_url) as connection:
        await connection.execute("SELECT saga_engine.draw_positions(1000)")
    await events.append(Append("order-1", [placed()]))
    found = await pages(event_database, EVERYTHING, event_window=100)
    assert sum(len(page.events) for page in found) == 1
    assert found[-1].position == 1001


async def test_nothing_is_read_beyond_the_horizon(events: Events, event_database: Database):
    await events.append(Append("order-1", [placed()] * 10))
    async with event_database.transaction() as tx:
        log = await EventLog.load(tx)
        page = await read_page(tx, log, EVERYTHING, (3, 7), Settings())
        assert [event.version for event in page.events] == [4, 5, 6, 7]
        assert page.position == 7
        assert await read_page(tx, log, EVERYTHING, (7, 7), Settings()) == LogPage((), 7)


@pytest.mark.parametrize("pattern", ["", "*-1", "order-*-1", "**"])
def test_a_pattern_has_one_asterisk_at_its_end(pattern: str):
    with pytest.raises(InvalidInput, match="Write order-o-1, or order-"):
        LogFilter.create(None, [pattern])


@pytest.mark.parametrize("name", ["order", "order-\0", 7, None])
def test_what_no_stream_is_named_is_refused(name: Any):
    with pytest.raises(InvalidInput, match="is not a pattern of streams"):
        LogFilter.create(None, [name])


def test_an_event_is_selected_by_its_class():
    assert LogFilter.create([Deposited, "other"], None).types == ["other", "wallet-deposited"]
    with pytest.raises(InvalidInput, match="Deposit is not the class of an event"):
        LogFilter.create([Deposit], None)


@pytest.mark.parametrize("name", ["Fee Charged", "", "x\0", 7])
def test_what_no_event_is_named_is_refused(name: Any):
    with pytest.raises(InvalidInput, match=r"is not the name of an event\. Use words"):
        LogFilter.create([name], None)


@pytest.mark.parametrize("given", [7, Deposited])
def test_what_is_not_a_collection_is_refused(given: Any):
    with pytest.raises(InvalidInput, match="Give a collection, such as a list"):
        LogFilter.create(given, None)


def test_a_single_text_is_not_a_collection_of_names():
    with pytest.raises(InvalidInput, match="types is one text"):
        LogFilter.create("order-placed", None)


async def test_a_page_does_not_pass_positions_that_are_drawn_again(
    events: Events, event_database: Database
):
    """A primary that has failed had position 33; the one that was promoted has one event."""
    await events.append(Append("order-1", [placed()]))
    async with event_database.transaction() as tx:
        log = await EventLog.load(tx)
        page = await read_page(tx, log, EVERYTHING, (0, 33), Settings())
    assert (len(page.events), page.position) == (1, 1)


async def test_a_position_that_was_never_drawn_is_refused(events: Events, event_database: Database):
    await events.append(Append("order-1", [placed()]))
    async with event_database.transaction() as tx:
        log = await EventLog.load(tx)
        with pytest.raises(StoreUnavailable, match=r"position 33 does not exist.*up to 1"):
            await read_page(tx, log, EVERYTHING, (33, 40), Settings())


async def test_a_position_above_a_horizon_that_went_down_has_no_events_yet(
    events: Events, event_database: Database, event_url: str
):
    """A transaction announces what it has read; meanwhile others may have appended."""
    await events.append(Append("order-1", [placed()] * 3))
    async with connected(event_url) as other, event_database.transaction() as tx:
        await other.execute("SELECT pg_advisory_lock_shared((23147::bigint << 48) | 1)")
        log = await EventLog.load(tx)
        assert await read_page(tx, log, EVERYTHING, (3, 3), Settings()) == LogPage((), 3)


@pytest.mark.parametrize(
    ("types", "streams", "reads"),
    [
        (None, None, True),
        (None, ["order-*"], False),
        (None, ["order-*", "run-*"], True),
        (None, ["r*"], True),
        (None, ["run-01a22ace-8a0d-7000-8000-00000000270f"], True),
        (["order-placed"], None, False),
        (["order-placed", "run_started"], None, True),
        (["run_started"], ["order-*"], False),
    ],
)
def test_a_filter_knows_whether_it_reads_runs(types, streams, reads):
    """Retention keeps the journals of runs for those that do."""
    assert LogFilter.create(types, streams).reads_runs is reads
