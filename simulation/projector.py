"""A simulated projector: the loops of a projection and of feeds, with their real code."""

import asyncio
from dataclasses import dataclass

from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.feeds.exchange_sink import ExchangeSink
from saga_engine.events.feeds.feed import ExchangeOptions, Feed
from saga_engine.events.feeds.feed_checkpoint import FeedCheckpoint
from saga_engine.events.feeds.feed_rules import event_filter
from saga_engine.events.feeds.feed_runner import FeedRunner
from saga_engine.events.feeds.feed_table import FeedKey
from saga_engine.events.feeds.interfaces import FeedMessages, FeedStore
from saga_engine.events.projections.projection import Projection
from saga_engine.events.projections.projection_batch import BatchApplier
from saga_engine.events.projections.projection_runner import ProjectionRunner
from saga_engine.events.projections.projection_version import ProjectionVersion
from saga_engine.events.readers.event_source import EventSource
from saga_engine.events.readers.horizon_watch import HorizonWatch
from saga_engine.events.readers.interfaces import EventStore
from saga_engine.events.readers.owned_loop import OwnedLoop
from saga_engine.payload.guard import NO_TIME_LIMIT
from saga_engine.settings import Settings
from saga_engine.telemetry.events import Observer
from saga_engine.telemetry.operations import Operation
from simulation.effect_events import ENGINE_LOG, LOG, effect_feed, run_feed
from simulation.memory_client import MemoryDatabaseClient
from simulation.projection_model import MemoryProjectionStore
from simulation.services_model import ServicesTransaction

Store = MemoryDatabaseClient[ServicesTransaction]


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedProjector:
    """
    The projection and the feeds of `effect_events` in one process.

    Args:
        projection: of the events of the services, as its code is declared now.
        services: the database of the services, with their streams.
        engine: the database of the engine, with the journals of runs.
        publisher: of the feeds.
        settings: leases and intervals.
        emit: takes telemetry events.
        owner: this process.
    """

    projection: Projection
    services: Store
    engine: FeedStore
    publisher: FeedMessages
    settings: Settings
    emit: Observer
    owner: str

    async def run(self, stop: asyncio.Event) -> None:
        """Run them until *stop* is set."""
        version = ProjectionVersion(self.projection, self.projection.version)
        store = MemoryProjectionStore(self.services, self.projection)
        applier = BatchApplier(store, version, self.owner, self.settings, NO_TIME_LIMIT)
        async with asyncio.TaskGroup() as tasks:
            source = self._source(tasks, self.services, LOG, stop)
            tasks.create_task(ProjectionRunner(version, source, applier, self.emit).run(stop))
            tasks.create_task(self._feed_runner(effect_feed, source, self.services).run(stop))
            source = self._source(tasks, self.engine, ENGINE_LOG, stop)
            tasks.create_task(self._feed_runner(run_feed, source, self.engine).run(stop))

    def _source(
        self, tasks: asyncio.TaskGroup, store: EventStore, log: EventLog, stop: asyncio.Event
    ) -> EventSource:
        horizon = HorizonWatch(store, self.settings)
        tasks.create_task(self._loop.watch(horizon, stop))
        return EventSource(store, log, horizon, self.settings)

    def _feed_runner(self, feed: Feed, source: EventSource, store: FeedStore) -> FeedRunner:
        (key,) = FeedKey.of(feed)
        options = feed.sinks[key.sink]
        assert isinstance(options, ExchangeOptions), "feeds of the simulation have no other sink"
        sink = ExchangeSink(key, options, source.log, self.publisher, lambda: None, self.emit)
        checkpoint = FeedCheckpoint(key, store, self.owner, self.settings.projection_lease)
        return FeedRunner(event_filter(feed), source, checkpoint, sink, self._loop)

    @property
    def _loop(self) -> OwnedLoop:
        return OwnedLoop(Operation.FEED, self.settings, self.emit)
