"""
The engine's read models in one process, beside its worker.

Any number of processes may run them; each is run by one of them at a time. They have connections of
their own, and what goes wrong with one of them ends neither the others nor the worker.
"""

import asyncio
from contextlib import AsyncExitStack

from saga_engine.errors import StoreError
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.projections import projection_table
from saga_engine.events.projections.projection_monitor import ProjectionMonitor
from saga_engine.events.projections.stopped_report import report_stopped
from saga_engine.events.read_models.failure_causes import FAILURE_CAUSE
from saga_engine.events.read_models.read_model_batch import ReadModelApplier
from saga_engine.events.read_models.read_model_runner import ReadModelRunner
from saga_engine.events.read_models.run_statistics import RUN_STATISTICS
from saga_engine.events.read_models.step_durations import STEP_DURATION
from saga_engine.events.readers.lease_table import PROJECTION_LEASES
from saga_engine.events.readers.owned_loop import OwnedLoop, process_owner
from saga_engine.events.readers.progress_monitor import ProgressMonitor
from saga_engine.events.readers.turns import Turns
from saga_engine.lifecycle import AsyncResource
from saga_engine.postgres.statement import Transaction, text
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.telemetry.events import Observer, ProjectionsRegistered
from saga_engine.telemetry.operations import Operation

READ_MODELS = (FAILURE_CAUSE, RUN_STATISTICS, STEP_DURATION)


class ReadModels(AsyncResource):
    """
    Runs the read models; `async with` opens it, `run` runs it.

    Args:
        settings: the engine's database, and how often.
        emit: takes telemetry events.

    Raises:
        ConfigurationError: there is no database URL.
        StoreError: on entering, when the database is not usable. Later, they wait for it.
    """

    def __init__(self, settings: Settings, emit: Observer) -> None:
        self._settings = settings
        self._emit = emit
        # Few connections: the three statements and the monitor hardly ever meet.
        own = settings.model_copy(update={"database_pool_size": 2})
        self._database = Database(settings.require_database_url(), own)
        self._owner = process_owner()
        self._loop = OwnedLoop(Operation.PROJECTION, settings, emit)
        self._monitor = ProjectionMonitor(self._database, READ_MODELS, self._owner, settings, emit)
        self._log: EventLog

    @property
    def problem(self) -> str | None:
        """Which read models of this process do not move, as a sentence; None: all do."""
        return self._monitor.problem

    async def _open(self, resources: AsyncExitStack) -> None:
        await resources.enter_async_context(self._database)
        async with self._database.transaction() as tx:
            self._log = await EventLog.load(tx)
            await register(tx)
            stored = await projection_table.read(tx)
            names = tuple(each.name for each in READ_MODELS)
            self._emit(ProjectionsRegistered(projections=names))
            await report_stopped(tx, [each for each in stored if each.name in names], self._emit)

    async def run(self, stop: asyncio.Event) -> None:
        """Run the read models until *stop* is set; then their leases end, too."""
        monitor = ProgressMonitor([self._monitor], self._settings, self._emit)
        settings = self._settings.model_copy(update={"projection_lease": self._lease})
        report = self._loop.report_unavailable
        turns = Turns(PROJECTION_LEASES, self._database, self._owner, settings, report)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(monitor.run(stop))
                for model in READ_MODELS:
                    applier = ReadModelApplier(
                        database=self._database,
                        log=self._log,
                        model=model,
                        owner=self._owner,
                        lease=self._lease,
                    )
                    runner = ReadModelRunner(applier, self._settings, self._emit)
                    turn = turns.add((model.name, str(model.version)))
                    tasks.create_task(runner.run(stop, turn))
                tasks.create_task(turns.run(stop))
        finally:
            await self._release()

    @property
    def _lease(self) -> float:
        """A batch renews the lease, and the next one may be an interval later."""
        return max(self._settings.projection_lease, 3 * self._settings.read_model_interval)

    async def _release(self) -> None:
        """End the leases. If that fails, they end with their time."""
        try:
            async with self._database.transaction() as tx:
                await projection_table.release(tx, READ_MODELS, self._owner)
        except StoreError as error:
            self._loop.report_unavailable(error)


async def register(tx: Transaction) -> None:
    """Make a row, at position 0, for each read model that has none."""
    names = [each.name for each in READ_MODELS]
    versions = [each.version for each in READ_MODELS]
    await tx.execute(_REGISTER, {"name": names, "version": versions})


# A migration that changes what a read model computes deletes its rows and its projection.
_REGISTER = text(
    """
    INSERT INTO saga_engine.projection (name, version, code_version, rebuild_problem)
    SELECT m.name, m.version, m.version, 'It is a read model of the engine, whose tables are fixed.'
    FROM unnest(CAST(:name AS text[]), CAST(:version AS integer[])) AS m(name, version)
    ORDER BY m.name ON CONFLICT (name, version) DO NOTHING"""
)
