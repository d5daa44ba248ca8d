"""
The process that runs projections: all of one database, beside any number of other processes.

Each projection is run by one process at a time. Another one takes over when its lease ends.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

from saga_engine.errors import StoreError
from saga_engine.events import projection_rules, projection_table
from saga_engine.events.event_log import EventLog
from saga_engine.events.event_source import EventSource
from saga_engine.events.horizon_watch import HorizonWatch
from saga_engine.events.owned_loop import OwnedLoop, process_owner
from saga_engine.events.projection import Projection
from saga_engine.events.projection_batch import BatchApplier
from saga_engine.events.projection_runner import ProjectionRunner
from saga_engine.events.sql_event_store import SqlEventStore
from saga_engine.lifecycle import AsyncResource
from saga_engine.payload.guard import NO_TIME_LIMIT, CallTimeLimit
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE
from saga_engine.telemetry.events import Observer
from saga_engine.telemetry.operations import Operation


class Projector(AsyncResource):
    """
    Runs projections; `async with` opens it, `run` runs it.

    Args:
        projections: their names and tables are different.
        database_url: the database of the events and of the tables.
        settings: batches, leases, timeouts.
        emit: takes telemetry events.
        time_limit: interrupts calls of pure functions.

    Raises:
        DefinitionError: a projection breaks a rule.
        SchemaMismatch: on entering: the database has no event tables, or has tables of another
            version of a projection.
        StoreUnavailable: on entering: the database is out of reach.
    """

    def __init__(
        self,
        projections: Sequence[Projection],
        database_url: str,
        settings: Settings,
        emit: Observer,
        time_limit: CallTimeLimit = NO_TIME_LIMIT,
    ) -> None:
        projection_rules.check(projections)
        self.owner = process_owner()
        self._projections = projections
        self._database = Database(database_url, settings, EVENT_DATABASE)
        self._settings = settings
        self._emit = emit
        self._loop = OwnedLoop(Operation.PROJECTION, settings, emit)
        self._time_limit = time_limit
        self._log: EventLog

    async def _open(self, resources: AsyncExitStack) -> None:
        await resources.enter_async_context(self._database)
        async with self._database.transaction() as tx:
            self._log = await EventLog.load(tx)
            await projection_table.register(tx, self._projections)

    async def run(self, stop: asyncio.Event) -> None:
        """Run the projections until *stop* is set; then their leases end, too."""
        store = SqlEventStore(self._database)
        horizon = HorizonWatch(store, self._settings)
        source = EventSource(store, self._log, horizon, self._settings)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._loop.watch(horizon, stop))
                for projection in self._projections:
                    tasks.create_task(self._runner(projection, source).run(stop))
        finally:
            await self._release()

    def _runner(self, projection: Projection, source: EventSource) -> ProjectionRunner:
        applier = BatchApplier(
            self._database, projection, self.owner, self._settings, self._time_limit
        )
        return ProjectionRunner(projection, source, applier, self._emit)

    async def _release(self) -> None:
        """End the leases. If that fails, they end with their time."""
        try:
            async with self._database.transaction() as tx:
                await projection_table.release(tx, self._projections, self.owner)
        except StoreError as error:
            self._loop.report_unavailable(error)
