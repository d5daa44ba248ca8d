"""
A simulated projector: the loops of a projection and of feeds, as `saga-engine projector` runs them.

`ProjectionWriterModel` stands for `projection_batch.BatchApplier`: it writes the effects and the
checkpoint of a batch in one transaction, after it has locked the checkpoint that they follow.
"""

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
from saga_engine.events.projections.change_batch import ChangeBatch
from saga_engine.events.projections.event_application import Plan, plan
from saga_engine.events.projections.event_batch import BatchResult, EventBatch, StreamRetry
from saga_engine.events.projections.projection import Projection
from saga_engine.events.projections.projection_failures import ParkedStream
from saga_engine.events.projections.projection_runner import ProjectionRunner
from saga_engine.events.projections.projection_version import ProjectionVersion
from saga_engine.events.readers.event_source import EventSource
from saga_engine.events.readers.horizon_watch import HorizonWatch
from saga_engine.events.readers.interfaces import EventStore
from saga_engine.events.readers.owned_loop import NotOwner, OwnedLoop
from saga_engine.payload.guard import NO_TIME_LIMIT
from saga_engine.settings import Settings
from saga_engine.telemetry.events import Observer
from saga_engine.telemetry.operations import Operation
from simulation.effect_events import ENGINE_LOG, LOG, effect_feed, run_feed, views
from simulation.memory_database import MemoryDatabaseClient
from simulation.services_model import ServicesTransaction

Store = MemoryDatabaseClient[ServicesTransaction]


class ProjectionWriterModel:
    """A ProjectionWriter in memory. No event is poison here."""

    def __init__(
        self, store: Store, projection: Projection, owner: str, settings: Settings
    ) -> None:
        self._store = store
        self._projection = projection
        self._owner = owner
        self._lease = settings.projection_lease

    @property
    def parked(self) -> dict[str, int]:
        return {}

    async def acquire(self) -> int | None:
        async with self._store.transaction() as tx:
            name = self._projection.name
            return await tx.acquire_reader("projection", name, self._owner, self._lease)

    async def apply(self, batch: EventBatch) -> BatchResult:
        planned = plan(self._projection, batch.events, self.parked.keys(), NO_TIME_LIMIT)
        async with self._store.transaction() as tx:
            if not await tx.lock_projection(self._projection.name, batch.after, self._owner):
                raise NotOwner
            await self.write(tx, planned)
            await self.save(tx, batch.until)
        return BatchResult(batch.until)

    async def write(self, tx: ServicesTransaction, planned: Plan) -> None:
        """Write the changes of a batch."""
        for step in planned.steps:
            assert isinstance(step, ChangeBatch), "async functions are not modelled"
            await tx.write_changes(step, self._projection.tables)

    async def save(self, tx: ServicesTransaction, position: int) -> None:
        """Save the checkpoint."""
        await tx.save_projection(self._projection.name, position, self._owner, self._lease)

    async def retried_streams(self) -> list[ParkedStream]:
        return []

    async def retry_stream(self, retry: StreamRetry) -> BatchResult:
        raise NotImplementedError(f"{retry.parked} is not parked")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedProjector:
    """
    The projection and the feeds of `effect_events` in one process.

    Args:
        services: the database of the services, with their streams.
        engine: the database of the engine, with the journals of runs.
        publisher: of the feeds.
        settings: leases and intervals.
        emit: takes telemetry events.
        owner: this process.
    """

    services: Store
    engine: FeedStore
    publisher: FeedMessages
    settings: Settings
    emit: Observer
    owner: str

    async def run(self, stop: asyncio.Event) -> None:
        """Run them until *stop* is set."""
        version = ProjectionVersion(views, views.version)
        writer = ProjectionWriterModel(self.services, views, self.owner, self.settings)
        async with asyncio.TaskGroup() as tasks:
            source = self._source(tasks, self.services, LOG, stop)
            tasks.create_task(ProjectionRunner(version, source, writer, self.emit).run(stop))
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
