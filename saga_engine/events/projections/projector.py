"""
The process that runs projections: all of one database, beside any number of other processes.

It runs each version of their tables that its code fills: the live one, a rebuild, the previous one.
Each is run by one process at a time, and the processes share them. Another one takes over when a
lease ends.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

from saga_engine.errors import Conflict, StoreError
from saga_engine.events.event_store import positions
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.projections import (
    projection_rebuild,
    projection_rules,
    projection_table,
    table_check,
)
from saga_engine.events.projections.projection import Projection
from saga_engine.events.projections.projection_batch import BatchApplier
from saga_engine.events.projections.projection_runner import ProjectionRunner
from saga_engine.events.projections.projection_table import (
    ProjectionRole,
    StoredProjection,
)
from saga_engine.events.projections.projection_version import ProjectionVersion
from saga_engine.events.projections.rebuild_pace import RebuildPace
from saga_engine.events.projections.sql_projection_store import SqlProjectionStore
from saga_engine.events.projections.stopped_report import report_stopped
from saga_engine.events.projections.version_changes import VersionChanges
from saga_engine.events.readers.event_source import EventSource
from saga_engine.events.readers.horizon_watch import HorizonWatch
from saga_engine.events.readers.lease_share import LeaseKey
from saga_engine.events.readers.lease_table import PROJECTION_LEASES
from saga_engine.events.readers.owned_loop import OwnedLoop, process_owner
from saga_engine.events.readers.sql_event_store import SqlEventStore
from saga_engine.events.readers.turns import Turns
from saga_engine.lifecycle import AsyncResource
from saga_engine.payload.guard import NO_TIME_LIMIT, CallTimeLimit
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE
from saga_engine.telemetry.events import (
    Observer,
    ProjectionVersionKept,
    ProjectionVersionRemoved,
)
from saga_engine.telemetry.operations import Operation
from saga_engine.waiting import wait_for_event


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
        DefinitionError: a projection breaks a rule; on entering: another one writes its tables.
        SchemaMismatch: on entering: the database has no event tables, lacks a table of a
            projection, or has tables of another version of it.
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
        self._database = Database(
            database_url,
            _with_pool_for(projections, settings),
            EVENT_DATABASE,
            runs_user_sql=True,
        )
        self._settings = settings
        self._emit = emit
        self._loop = OwnedLoop(Operation.PROJECTION, settings, emit)
        self._time_limit = time_limit
        self._changes = VersionChanges(self.owner, settings.projection_switch_window)
        self._kept: dict[str, str] = {}
        self._log: EventLog

    async def _open(self, resources: AsyncExitStack) -> None:
        await resources.enter_async_context(self._database)
        async with self._database.transaction() as tx:
            self._log = await EventLog.load(tx)
            await table_check.wait_for_turn(tx)
            await projection_table.register(tx, self._projections)
            stored = await projection_table.read(tx)
            await table_check.check_tables(tx, self._live(stored))
            await table_check.check_owners(tx, self._projections, stored)

    def _live(self, stored: Sequence[StoredProjection]) -> Sequence[Projection]:
        """Those whose code fills the live tables; a projector makes the tables of a rebuild."""
        live = {
            (each.name, each.code_version) for each in stored if each.role is ProjectionRole.LIVE
        }
        return [each for each in self._projections if (each.name, each.version) in live]

    async def run(self, stop: asyncio.Event) -> None:
        """Run the projections until *stop* is set; then their leases end, too."""
        store = SqlEventStore(self._database)
        horizon = HorizonWatch(store, self._settings)
        source = EventSource(store, self._log, horizon, self._settings)
        report = self._loop.report_unavailable
        turns = Turns(PROJECTION_LEASES, self._database, self.owner, self._settings, report)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._loop.watch(horizon, stop))
                tasks.create_task(self._run_versions(source, turns, stop))
                tasks.create_task(turns.run(stop))
        finally:
            await self._release()

    async def _run_versions(self, source: EventSource, turns: Turns, stop: asyncio.Event) -> None:
        """Run each version of the tables of the projections, also those that are made later."""
        running: dict[ProjectionVersion, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as tasks:
            while not stop.is_set():
                try:
                    await self._remove_expired()
                    versions = await self._read_versions()
                    await self._report_changes([*versions.values()])
                    added = versions.keys() - running.keys()
                    if added:
                        async with self._database.transaction() as tx:
                            await report_stopped(tx, [versions[each] for each in added], self._emit)
                except StoreError as error:
                    self._loop.report_unavailable(error)
                else:
                    for removed in running.keys() - versions.keys():
                        running.pop(removed).cancel()
                        turns.remove(_lease_key(removed))
                    for each in added:
                        runner = self._runner(each, versions[each].role, source)
                        turn = turns.add(_lease_key(each))
                        running[each] = tasks.create_task(runner.run(stop, turn))
                await wait_for_event(stop, self._settings.projection_lease / 3)

    async def _report_changes(self, versions: Sequence[StoredProjection]) -> None:
        async with self._database.transaction() as tx:
            horizon = await positions.horizon(tx)
        for change in self._changes.find(versions, horizon):
            self._emit(change)

    async def _read_versions(self) -> Mapping[ProjectionVersion, StoredProjection]:
        """The versions that are stored, of the code of this process."""
        declared = {(each.name, each.version): each for each in self._projections}
        async with self._database.transaction() as tx:
            stored = await projection_table.read(tx)
        return {
            ProjectionVersion(declared[code], each.version): each
            for each in stored
            if (code := (each.name, each.code_version)) in declared
        }

    async def _remove_expired(self) -> None:
        """Remove the tables of these projections that were replaced too long ago."""
        retention = self._settings.projection_previous_retention
        names = [each.name for each in self._projections]
        async with self._database.transaction() as tx:
            expired = await projection_rebuild.expired(tx, names, retention)
        for name in expired:
            try:
                async with self._database.transaction() as tx:
                    version = await projection_rebuild.remove_expired(tx, name, retention)
            except (Conflict, StoreError) as error:
                self._report_kept(name, str(error))
            else:
                if version is not None:
                    self._emit(ProjectionVersionRemoved(projection=name, version=version))

    def _report_kept(self, name: str, problem: str) -> None:
        """Report once for each problem: it is tried again every few seconds."""
        if self._kept.get(name) != problem:
            self._kept[name] = problem
            self._emit(ProjectionVersionKept(projection=name, problem=problem))

    def _runner(
        self, projection: ProjectionVersion, role: ProjectionRole, source: EventSource
    ) -> ProjectionRunner:
        store = SqlProjectionStore(self._database, projection)
        applier = BatchApplier(store, projection, self.owner, self._settings, self._time_limit)
        pace = None
        if role is ProjectionRole.REBUILD:
            pace = RebuildPace(self._database, self._log, projection, self._settings)
        return ProjectionRunner(projection, source, applier, self._emit, pace)

    async def _release(self) -> None:
        """End the leases. If that fails, they end with their time."""
        try:
            async with self._database.transaction() as tx:
                await projection_table.release(tx, self._projections, self.owner)
        except StoreError as error:
            self._loop.report_unavailable(error)


def _lease_key(version: ProjectionVersion) -> LeaseKey:
    return version.name, str(version.version)


def _with_pool_for(projections: Sequence[Projection], settings: Settings) -> Settings:
    """Enough connections for all projections and the horizon: a slow one delays no other."""
    # One for a batch and one for the next page; as many for a rebuild, or the previous tables.
    needed = 4 * len(projections) + 1
    size = max(settings.database_pool_size, needed)
    return settings.model_copy(update={"database_pool_size": size})
