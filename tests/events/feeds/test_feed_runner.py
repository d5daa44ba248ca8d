"""The loop of a feed reads the next page of events while one is published."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from saga_engine.events import Append, Events, Recorded
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
class PatientSink:
    """A sink that confirms a full page when the next one has been read."""

    read_until: asyncio.Queue[int]
    stop: asyncio.Event
    published: list[Recorded] = field(default_factory=list)

    one_at_a_time = False
    unroutable = Unroutable.STOP
    problem = None
    differences = ()
    confirmed_offsets = NO_OFFSETS

    async def resume(self, position: int) -> int:
        return position

    async def publish(self, events: Sequence[Recorded]) -> list[PublishOutcome]:
        if len(events) == PAGE:
            async with asyncio.timeout(20):
                while await self.read_until.get() <= events[-1].position:
                    pass
        self.published += events
        if len(self.published) == EVENTS:
            self.stop.set()
        return [PublishOutcome.CONFIRMED] * len(events)

    def explain(self, event: Recorded, outcome: PublishOutcome) -> str:
        raise NotImplementedError


async def test_the_next_page_is_read_before_the_sink_has_confirmed_one(
    events: Events, feed_database: Database
):
    await events.append(Append("order-1", [placed(n) for n in range(EVENTS)]))
    settings, stop = Settings(feed_batch_size=PAGE), asyncio.Event()
    read_until: asyncio.Queue[int] = asyncio.Queue()
    store = SqlFeedStore(feed_database)
    async with feed_database.transaction() as tx:
        log = await EventLog.load(tx)
    horizon = HorizonWatch(store, settings)
    await horizon.look()
    source = WatchedSource(store, log, horizon, settings, read_until)
    sink = PatientSink(read_until, stop)
    runner = FeedRunner(
        LogFilter(),
        source,
        FeedCheckpoint(ORDERS, store, "process-1", settings.projection_lease),
        sink,
        OwnedLoop(Operation.FEED, settings, EventRecorder()),
    )
    await runner.run(stop)
    assert [number_in(each) for each in sink.published] == [*range(EVENTS)]
    assert (await stored_feed(feed_database)).position >= sink.published[-1].position
