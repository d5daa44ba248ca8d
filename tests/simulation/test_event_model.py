"""The event tables in PostgreSQL and their model: what these tests promise, both keep."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, Protocol

import pytest
from sqlalchemy import select

from saga_engine.errors import WrongVersion
from saga_engine.events import Append, append_in
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.event_store.log_page import LogFilter, LogPage
from saga_engine.events.event_store.recorded import EventData
from saga_engine.events.feeds import feed_table
from saga_engine.events.feeds.feed import Sink
from saga_engine.events.feeds.feed_table import FeedKey, Progress
from saga_engine.events.feeds.interfaces import FeedStore, FeedTransaction
from saga_engine.events.feeds.sql_feed_store import SqlFeedStore, SqlFeedTransaction
from saga_engine.events.projections import projection_actions, projection_table
from saga_engine.events.projections.event_batch import EventBatch, StreamRetry
from saga_engine.events.projections.interfaces import ProjectionStore, ProjectionTransaction
from saga_engine.events.projections.projection import Projection
from saga_engine.events.projections.projection_batch import BatchApplier
from saga_engine.events.projections.projection_version import ProjectionVersion
from saga_engine.events.projections.sql_projection_store import SqlProjectionStore
from saga_engine.events.readers.operator_audit import Operator
from saga_engine.events.readers.owned_loop import NotOwner
from saga_engine.payload.guard import NO_TIME_LIMIT
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from simulation.effect_events import (
    ENGINE_LOG,
    LOG,
    declare_views,
    metadata,
    read_event,
    stream_view,
    views,
)
from simulation.event_model import EventModel
from simulation.faults import FaultInjector, seeded_random
from simulation.memory_client import MemoryDatabaseClient
from simulation.memory_database import MemoryDatabase
from simulation.process import SimulatedProcess
from simulation.projection_model import MemoryProjectionStore, ProjectionTransactionModel
from simulation.services_model import ServicesTransaction
from tests.kit.programs import wait_until_true
from tests.kit.stored_runs import append_run, decide_start, run_append
from tests.kit.stores import SqlRequesterStore

KEY = FeedKey("effects", Sink.EXCHANGE)
LONG, SHORT = 60.0, 0.01  # Seconds of a lease.
EVERYTHING = LogFilter()


class AppendingTransaction(FeedTransaction, Protocol):
    """A FeedTransaction that appends, too."""

    async def append_effects(self, stream: str, expected: int, *steps: str) -> None: ...


class EventDatabase(Protocol):
    """The event tables with a registered projection and feed."""

    log: EventLog

    def transaction(self) -> AbstractAsyncContextManager[AppendingTransaction]: ...

    def projections(self, declared: Projection) -> ProjectionStore: ...

    async def request_retries(self) -> None: ...

    async def projected(self) -> tuple[dict[str, int], list[int]]: ...


def applier(
    events: EventDatabase, owner: str, lease: float = LONG, declared: Projection = views
) -> BatchApplier:
    version = ProjectionVersion(declared, declared.version)
    settings = Settings(projection_lease=lease)
    return BatchApplier(events.projections(declared), version, owner, settings, NO_TIME_LIMIT)


def effect_events(expected: int, steps: tuple[str, ...]) -> list[EventData]:
    return [
        EventData("effect-recorded", 1, {"step": step, "direction": "action", "number": number})
        for number, step in enumerate(steps, expected + 1)
    ]


class SqlAppendingTransaction(SqlFeedTransaction):
    def __init__(self, tx: Any) -> None:
        super().__init__(tx)
        self._connection = tx.connection

    async def append_effects(self, stream: str, expected: int, *steps: str) -> None:
        events = effect_events(expected, steps)
        await append_in(self._connection, Append(stream, events, expected))


class SqlEventDatabase:
    def __init__(self, database: Database, log: EventLog) -> None:
        self.log = log
        self._database = database
        self.store: FeedStore = SqlFeedStore(database)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AppendingTransaction]:
        async with self._database.transaction() as tx:
            yield SqlAppendingTransaction(tx)

    def projections(self, declared: Projection) -> ProjectionStore:
        return SqlProjectionStore(self._database, ProjectionVersion(declared, declared.version))

    async def request_retries(self) -> None:
        async with self._database.transaction() as tx:
            await projection_actions.retry(tx, views.name, Operator("ada", "a test"))

    async def projected(self) -> tuple[dict[str, int], list[int]]:
        async with self._database.transaction() as tx:
            counts = await tx.connection.execute(select(stream_view.c.stream, stream_view.c.events))
            read = await tx.connection.execute(select(read_event.c.position).order_by("position"))
            return {row.stream: row.events for row in counts}, [*read.scalars()]


class MemoryAppendingTransaction(ServicesTransaction):
    async def append_effects(self, stream: str, expected: int, *steps: str) -> None:
        await self.append(stream, expected, effect_events(expected, steps))


class MemoryEventDatabase:
    log = LOG

    def __init__(self) -> None:
        process = SimulatedProcess("test", FaultInjector(), seeded_random(0, "network"))
        self._database = MemoryDatabase()
        client = MemoryDatabaseClient(self._database, process, MemoryAppendingTransaction)
        self.transaction = client.transaction
        self._store = MemoryDatabaseClient(self._database, process, ServicesTransaction)

    def projections(self, declared: Projection) -> ProjectionStore:
        return MemoryProjectionStore(self._store, declared)

    async def request_retries(self) -> None:
        async with MemoryProjectionStore(self._store, views).transaction() as tx:
            await tx.request_retries()

    async def projected(self) -> tuple[dict[str, int], list[int]]:
        rows = self._database.rows
        counts = {stream: row["events"] for (stream,), row in rows["stream_view"].items()}
        return counts, sorted(position for (position,) in rows["read_event"])


@pytest.fixture
async def sql_events(database: Database) -> SqlEventDatabase:
    async with database.transaction() as tx:
        await tx.connection.run_sync(metadata.create_all)
        await projection_table.register(tx, [views])
        await feed_table.register(tx, [KEY])
        log = await EventLog.load(tx)
    return SqlEventDatabase(database, log)


@pytest.fixture
def memory_events() -> MemoryEventDatabase:
    return MemoryEventDatabase()


@pytest.fixture(params=["sql_events", "memory_events"])
def events(request: pytest.FixtureRequest) -> EventDatabase:
    found: EventDatabase = request.getfixturevalue(request.param)
    return found


async def append(events: EventDatabase, stream: str, expected: int, *steps: str) -> None:
    async with events.transaction() as tx:
        await tx.append_effects(stream, expected, *steps)


async def horizon(events: EventDatabase) -> int:
    async with events.transaction() as tx:
        return await tx.horizon()


async def read(
    events: EventDatabase, after: int = 0, max_events: int = 100, log_filter: LogFilter = EVERYTHING
) -> LogPage:
    async with events.transaction() as tx:
        bounds = (after, await tx.horizon())
        return await tx.read_page(events.log, log_filter, bounds, Settings(), max_events)


def read_steps(page: LogPage) -> list[Any]:
    contents: list[Any] = [each.data for each in page.events]
    return [each["step"] for each in contents]


class RolledBack(Exception):
    """What a test raises in a transaction."""


async def test_events_are_read_in_the_order_of_their_positions(events):
    await append(events, "effects-b", 0, "one")
    await append(events, "effects-a", 0, "two", "three")
    page = await read(events)
    assert read_steps(page) == ["one", "two", "three"]
    assert [each.position for each in page.events] == [1, 2, 3]
    assert [(each.stream, each.version) for each in page.events] == [
        ("effects-b", 1),
        ("effects-a", 1),
        ("effects-a", 2),
    ]
    assert len({each.id for each in page.events}) == 3
    assert page.position == await horizon(events) == 3


async def test_a_page_says_where_the_next_one_begins(events):
    await append(events, "effects-a", 0, "one", "two", "three")
    first = await read(events, max_events=2)
    second = await read(events, first.position)
    assert (read_steps(first), read_steps(second)) == (["one", "two"], ["three"])
    assert (await read(events, second.position)).position == second.position


async def test_other_types_are_passed_over(events):
    await append(events, "effects-a", 0, "one")
    page = await read(events, log_filter=LogFilter.create(["another"], None))
    assert (list(page.events), page.position) == ([], 1)


async def test_the_horizon_waits_for_an_open_transaction_and_passes_one_that_rolled_back(events):
    with suppress(RolledBack):
        async with events.transaction() as tx:
            await tx.append_effects("effects-a", 0, "never")
            await append(events, "effects-b", 0, "later")
            assert await horizon(events) == 0
            assert read_steps(await read(events)) == []
            raise RolledBack
    assert await horizon(events) == 2
    assert read_steps(await read(events)) == ["later"]


@pytest.mark.parametrize("expected", [0, 2])
async def test_an_append_after_another_version_appends_nothing(events, expected):
    await append(events, "effects-a", 0, "one")
    async with events.transaction() as tx:
        with pytest.raises(WrongVersion):
            await tx.append_effects("effects-a", expected, "two", "three")
        await tx.append_effects("effects-a", 1, "two")
    assert read_steps(await read(events)) == ["one", "two"]


async def test_a_feed_has_one_owner_until_its_lease_ends(events):
    async with events.transaction() as tx:
        assert await tx.acquire_feed(KEY, "first", LONG) == 0
        assert await tx.acquire_feed(KEY, "second", LONG) is None
        assert await tx.acquire_feed(KEY, "first", SHORT) == 0

    async def is_taken_over() -> bool:
        async with events.transaction() as tx:
            return bool(await tx.acquire_feed(KEY, "second", LONG) == 0)

    await wait_until_true(is_taken_over, interval=0.01)


async def test_a_feed_saves_only_after_the_position_that_it_has(events):
    async with events.transaction() as tx:
        await tx.acquire_feed(KEY, "first", LONG)
        assert await tx.save_feed(KEY, Progress(0, 3), "first", LONG)
        assert not await tx.save_feed(KEY, Progress(0, 2), "second", LONG)
        assert await tx.acquire_feed(KEY, "first", LONG) == 3


async def test_a_stopped_feed_has_no_owner(events):
    await append(events, "effects-a", 0, "one")
    (event,) = (await read(events)).events
    async with events.transaction() as tx:
        await tx.acquire_feed(KEY, "first", LONG)
        await tx.stop_feed(KEY, event, "No queue.")
        assert await tx.acquire_feed(KEY, "first", LONG) is None
        assert not await tx.save_feed(KEY, Progress(0, 1), "first", LONG)


async def test_a_batch_writes_its_rows_and_the_checkpoint(events):
    await append(events, "effects-a", 0, "one", "two")
    await append(events, "effects-b", 0, "one")
    writer, page = applier(events, "first"), await read(events)
    assert await writer.acquire() == 0
    assert (await writer.apply(EventBatch(0, 3, page.events))).position == 3
    assert await events.projected() == ({"effects-a": 2, "effects-b": 1}, [1, 2, 3])
    await append(events, "effects-a", 2, "three")
    await writer.apply(EventBatch(3, 4, (await read(events, 3)).events))
    assert await events.projected() == ({"effects-a": 3, "effects-b": 1}, [1, 2, 3, 4])
    assert await writer.acquire() == 4


async def test_a_batch_after_another_checkpoint_writes_nothing(events):
    await append(events, "effects-a", 0, "one")
    page = await read(events)
    first, second = applier(events, "first"), applier(events, "second")
    await first.acquire()
    await first.apply(EventBatch(0, 1, page.events))
    with pytest.raises(NotOwner):
        await second.apply(EventBatch(0, 1, page.events))
    assert await events.projected() == ({"effects-a": 1}, [1])


async def test_a_projection_has_one_owner_until_its_lease_ends(events):
    assert await applier(events, "first", SHORT).acquire() == 0

    async def is_taken_over() -> bool:
        return bool(await applier(events, "second").acquire() == 0)

    await wait_until_true(is_taken_over, interval=0.01)
    assert await applier(events, "third").acquire() is None


async def test_an_event_that_cannot_be_applied_parks_its_stream_until_a_retry(events):
    await append(events, "effects-a", 0, "one", "two", "three")
    await append(events, "effects-b", 0, "one")
    read_events = (await read(events)).events
    faulty = applier(events, "first", declared=declare_views(lambda each: each.position != 2))
    await faulty.acquire()
    result = await faulty.apply(EventBatch(0, 4, read_events))
    assert [each.recorded.position for each in result.poison] == [2]
    assert faulty.parked == {"effects-a": 2}
    assert await events.projected() == ({"effects-a": 1, "effects-b": 1}, [1, 4])
    assert await faulty.retried_streams() == []
    await events.request_retries()
    corrected = applier(events, "first")
    assert await corrected.acquire() == 4
    (parked,) = await corrected.retried_streams()
    retried, rest = read_events[1:2], read_events[2:3]
    following = replace(parked, next_position=3, next_version=3)
    await corrected.retry_stream(StreamRetry(4, parked, retried, following))
    assert corrected.parked == {"effects-a": 3}
    assert await corrected.retried_streams() == [following]
    await corrected.retry_stream(StreamRetry(4, following, rest, None))
    assert corrected.parked == {}
    assert await events.projected() == ({"effects-a": 3, "effects-b": 1}, [1, 2, 3, 4])


async def test_a_projection_that_is_stopped_has_no_owner(events):
    store = events.projections(views)
    async with store.transaction() as tx:
        assert await tx.acquire("first", LONG) == 0
        assert await tx.lock(0, "first")
        await tx.stop()
    async with store.transaction() as tx:
        assert await tx.acquire("first", LONG) is None
        assert not await tx.lock(0, "first")


def test_the_models_have_every_method_of_the_interfaces():
    for interface, model in (
        (FeedTransaction, EventModel),
        (ProjectionTransaction, ProjectionTransactionModel),
    ):
        names = {name for name in dir(interface) if not name.startswith("_")}
        assert names <= set(dir(model))


async def test_the_journals_of_runs_are_streams(store, request):
    async with store.transaction() as tx:
        now = await tx.database_now()
        decision = decide_start(now)
        run = run_append(decision, definition_id=1, recorded_at=now)
        row = run.journal_row
        await append_run(tx, run)
    is_sql = isinstance(store, SqlRequesterStore)
    events = SqlFeedStore(request.getfixturevalue("database")) if is_sql else store
    async with events.transaction() as tx:
        bounds = (0, await tx.horizon())
        page = await tx.read_page(ENGINE_LOG, EVERYTHING, bounds, Settings(), 100)
    stream = f"run-{row.run_id}"
    assert [(each.stream, each.version, each.place, each.type) for each in page.events] == [
        (stream, 1, 0, "run_started"),
        (stream, 1, 1, "attempt_started"),
    ]
    assert [each.position for each in page.events] == [1, 2]
    assert page.position == 2
