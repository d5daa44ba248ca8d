"""
The composition root of a projector process: projections, feeds, their monitor, the shutdown.

After `stop` is set, `run` ends when the batches in progress are committed or confirmed and the
leases are ended, or at the deadline; another process then continues from the checkpoints.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

from saga_engine.engine_process import EngineProcess, Readiness
from saga_engine.events.aggregates.aggregate import Aggregate
from saga_engine.events.declared_events import event_types_of_declaration
from saga_engine.events.event_store.schema_registration import register_events
from saga_engine.events.feeds.feed import Feed
from saga_engine.events.feeds.feed_monitor import FeedMonitor
from saga_engine.events.feeds.feed_publisher import FeedPublisher
from saga_engine.events.projections.projection import Projection
from saga_engine.events.projections.projection_monitor import ProjectionMonitor
from saga_engine.events.projections.projector import Projector
from saga_engine.events.readers.progress_monitor import Measured, ProgressMonitor
from saga_engine.payload.guard import NO_TIME_LIMIT, CallTimeLimit
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE
from saga_engine.telemetry.events import (
    FeedsRegistered,
    Observer,
    ProcessReady,
    ProcessStopped,
    ProjectionsRegistered,
)
from saga_engine.vocabulary import Program


class ProjectorService(EngineProcess):
    """
    The projections and feeds of one process; `async with` opens them, `run` runs them.

    Any number of processes may run the same ones; each is run by one of them at a time.

    Args:
        projections: their names and tables are different.
        settings: `database_url` is the database of the events and of the tables; `broker_url` is
            needed for feeds to the exchange only.
        emit: takes telemetry events.
        time_limit: interrupts calls of pure functions.
        feeds: their names are different.
        aggregates: whose events are registered and judged, as those of projections and feeds are.

    Raises:
        DefinitionError: a projection or a feed breaks a rule; on entering: an event cannot read
            what is stored, see register_events.
        ConfigurationError: there is no database URL, or no broker URL for a feed to the exchange.
        StoreError: on entering, when the database is not usable; see Projector. Later, the service
            waits for a database that is unavailable.
        BrokerError: on entering, when the broker is not usable; see FeedPublisher. Later, feeds
            wait for it.
    """

    def __init__(
        self,
        projections: Sequence[Projection],
        settings: Settings,
        emit: Observer,
        time_limit: CallTimeLimit = NO_TIME_LIMIT,
        *,
        feeds: Sequence[Feed] = (),
        aggregates: Sequence[Aggregate] = (),
    ) -> None:
        super().__init__(Program.PROJECTOR, settings, emit)
        url = settings.require_database_url()
        self._projections = projections
        self._declared = (*projections, *feeds, *aggregates)
        self._time_limit = time_limit
        self._projector = Projector(projections, url, settings, emit, time_limit)
        self._feeds = FeedPublisher(feeds, url, settings, emit) if feeds else None
        # Of its own, so that busy projections neither delay it nor hide that they are stuck.
        self._database = Database(url, settings, EVENT_DATABASE)
        self._projection_monitor = ProjectionMonitor(
            self._database, projections, self._projector.owner, settings, emit
        )
        self._feed_monitor = (
            FeedMonitor(self._database, self._feeds, settings, emit) if self._feeds else None
        )
        measured: list[Measured] = [self._projection_monitor]
        if self._feed_monitor:
            measured.append(self._feed_monitor)
        self._monitor = ProgressMonitor(measured, settings, emit)

    async def _open(self, resources: AsyncExitStack) -> None:
        await resources.enter_async_context(self._database)
        await self._register_schemas()
        await resources.enter_async_context(self._projector)
        if self._feeds:
            await resources.enter_async_context(self._feeds)
            feeds = tuple((key.name, key.sink.value) for key in sorted(self._feeds.keys))
            self._emit(FeedsRegistered(feeds=feeds))
        names = tuple(each.name for each in self._projections)
        self._emit(ProjectionsRegistered(projections=names))

    async def _register_schemas(self) -> None:
        """Register the schemas of all declared events, or refuse those that break."""
        types = [kind for each in self._declared for kind in event_types_of_declaration(each)]
        async with self._database.transaction() as tx:
            await register_events(tx, types, self._settings, self._time_limit)

    async def run(self, stop: asyncio.Event) -> None:
        """Run everything until *stop* is set, then shut down within `shutdown_timeout`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._monitor.run(stop))
            group.create_task(self._measure_loop_lag(stop))
            work = group.create_task(self._work(stop))
            self._emit(ProcessReady(program=self._program))
            await stop.wait()
            clean = await self._shut_down(work)
        self._emit(ProcessStopped(program=self._program, clean=clean))

    async def _work(self, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._projector.run(stop))
            if self._feeds:
                group.create_task(self._feeds.run(stop))

    async def readiness(self) -> Readiness:
        """Report each dependency of the process; see Readiness."""
        readiness: Readiness = {
            "database": await self._database.find_problem(),
            "projections": self._projection_monitor.problem,
            **self._process_readiness(),
        }
        if self._feeds and self._feed_monitor:
            readiness["feeds"] = self._feed_monitor.problem
            readiness["publishing"] = self._feeds.problem
        return readiness
