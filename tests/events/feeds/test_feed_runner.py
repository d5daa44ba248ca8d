"""The loop of a feed reads a page while it publishes one, and lets few events gather."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from saga_engine.events import ANY, Append, Events, Recorded
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.event_store.log_page import LogFilter, LogPage
from saga_engine.events.feeds.confirmed_offsets import NO_OFFSETS
from saga_engine.events.feeds.feed import Unroutable
from saga_engine.events.feeds.feed_checkpoint import FeedCheckpoint
from saga_engine.events.feeds.feed_runner import FeedRunner
from saga_engine.events.feeds.sql_feed_store import SqlFeedStore
from saga_engine.events.readers.event_source import EventSource
from saga_engine.events.readers.horizon_watch import HorizonWatch
from saga_engine.events.readers.owned_loop import OwnedLoop
from saga_engine.protocol.message import PublishOutcome
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.telemetry.operations import Operation
from tests.kit.event_database import number_in, placed
from tests.kit.events import EventRecorder
from tests.kit.feeds import ORDERS, stored_feed

EVENTS, PAGE = 10, 4


@dataclass(frozen=True)
class WatchedSource(EventSource):
    """Events of a database; `read_until` gets the position of each page when it has been read."""

    read_until: asyncio.Queue[int]

    async def read(self, log_filter: LogFilter, after: int, max_events: int) -> LogPage:
        page = await super().read(log_filter, after, max_events)
        self.read_until.put_nowait(page.position)
        return page


@dataclass
class RecordingSink:
    """
    A sink that confirms every event.

    Args:
        stop: is set when it has so many events.
        stop_after: how many.
        before: what it waits for before it confirms events.
    """

    stop: asyncio.Event
    stop_after: int
    before: Callable[[Sequence[Recorded]], Awaitable[None]]
    published: list[Recorded] = field(default_factory=list)

    one_at_a_time = False
    unroutable = Unroutable.STOP
    problem = None
    differences = ()
    confirmed_offsets = NO_OFFSETS

    async def resume(self, position: int) -> int:
        return position

    async def publish(self, events: Sequence[Recorded]) -> list[PublishOutcome]:
        await self.before(events)
        self.published += events
        if len(self.published) == self.stop_after:
            self.stop.set()
        return [PublishOutcome.CONFIRMED] * len(events)

    def explain(self, event: Recorded, outcome: PublishOutcome) -> str:
        raise NotImplementedError


async def watched(database: Database, settings: Settings) -> WatchedSource:
    """The events of a database, up to the horizon of now."""
    store = SqlFeedStore(database)
    async with database.transaction() as tx:
        log = await EventLog.load(tx)
    horizon = HorizonWatch(store, settings)
    await horizon.look()
    return WatchedSource(store, log, horizon, settings, asyncio.Queue())


def runner_of(source: WatchedSource, database: Database, sink: RecordingSink) -> FeedRunner:
    """The loop of the feed `orders`."""
    settings = source.settings
    store = SqlFeedStore(database)
    checkpoint = FeedCheckpoint(ORDERS, store, "process-1", settings.projection_lease)
    loop = OwnedLoop(Operation.FEED, settings, EventRecorder())
    return FeedRunner(LogFilter(), source, checkpoint, sink, loop)


async def test_the_next_page_is_read_before_the_sink_has_confirmed_one(
    events: Events, feed_database: Database
):
    await events.append(Append("order-1", [placed(n) for n in range(EVENTS)]))
    stop = asyncio.Event()
    source = await watched(feed_database, Settings(feed_batch_size=PAGE))

    async def next_page_is_read(page: Sequence[Recorded]) -> None:
        if len(page) == PAGE:
            async with asyncio.timeout(20):
                while await source.read_until.get() <= page[-1].position:
                    pass

    sink = RecordingSink(stop, EVENTS, next_page_is_read)
    await runner_of(source, feed_database, sink).run(stop)
    assert [number_in(each) for each in sink.published] == [*range(EVENTS)]
    assert (await stored_feed(feed_database)).position >= sink.published[-1].position


async def test_a_feed_that_is_up_to_date_publishes_at_once_and_then_waits_for_its_interval(
    events: Events, feed_database: Database
):
    await events.append(Append("order-1", [placed(1)]))
    stop, published = asyncio.Event(), asyncio.Event()
    settings = Settings(feed_interval=60.0, projection_lease=600.0)
    source = await watched(feed_database, settings)

    async def note(_: Sequence[Recorded]) -> None:
        published.set()

    sink = RecordingSink(stop, EVENTS, note)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(runner_of(source, feed_database, sink).run(stop))
        async with asyncio.timeout(20):
            await published.wait()
        for number in range(2, EVENTS):  # so many statements let it publish, if it does not wait
            await events.append(Append("order-1", [placed(number)], ANY))
            await source.horizon.look()
        stop.set()
    assert [number_in(each) for each in sink.published] == [1]
