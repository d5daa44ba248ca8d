"""
The composition root of a projector process: its projections, their monitor and its shutdown.

After `stop` is set, `run` ends when the batches in progress are committed and the leases are ended,
or at the deadline; another process then continues from the checkpoints.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

from saga_engine.engine_process import EngineProcess, Readiness
from saga_engine.errors import SagaEngineError
from saga_engine.events.projection import Projection
from saga_engine.events.projection_monitor import ProjectionMonitor
from saga_engine.events.projector import Projector
from saga_engine.payload.guard import NO_TIME_LIMIT, CallTimeLimit
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE
from saga_engine.telemetry.events import (
    Observer,
    ProcessReady,
    ProcessStopped,
    ProjectionsRegistered,
)
from saga_engine.vocabulary import Program


class ProjectorService(EngineProcess):
    """
    The projections of one process; `async with` opens their database, `run` runs them.

    Any number of processes may run the same projections; each is run by one of them at a time.

    Args:
        projections: their names and tables are different.
        settings: `database_url` is the database of the events and of the tables.
        emit: takes telemetry events.
        time_limit: interrupts calls of pure functions.

    Raises:
        DefinitionError: a projection breaks a rule.
        ConfigurationError: there is no database URL.
        StoreError: on entering, when the database is not usable; see Projector. Later, the service
            waits for a database that is unavailable.
    """

    def __init__(
        self,
        projections: Sequence[Projection],
        settings: Settings,
        emit: Observer,
        time_limit: CallTimeLimit = NO_TIME_LIMIT,
    ) -> None:
        super().__init__(Program.PROJECTOR, settings, emit)
        url = settings.require_database_url()
        self._projections = projections
        self._projector = Projector(projections, url, settings, emit, time_limit)
        # Of its own, so that busy projections neither delay it nor hide that they are stuck.
        self._database = Database(url, settings, EVENT_DATABASE)
        self._monitor = ProjectionMonitor(
            self._database, projections, self._projector.owner, settings, emit
        )

    async def _open(self, resources: AsyncExitStack) -> None:
        await resources.enter_async_context(self._database)
        await resources.enter_async_context(self._projector)
        names = tuple(each.name for each in self._projections)
        self._emit(ProjectionsRegistered(projections=names))

    async def run(self, stop: asyncio.Event) -> None:
        """Run the projections until *stop* is set, then shut down within `shutdown_timeout`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._monitor.run(stop))
            work = group.create_task(self._projector.run(stop))
            self._emit(ProcessReady(program=self._program))
            await stop.wait()
            clean = await self._shut_down(work)
        self._emit(ProcessStopped(program=self._program, clean=clean))

    async def readiness(self) -> Readiness:
        """Report each dependency of the process; see Readiness."""
        return {
            "database": await self._database_problem(),
            "projections": self._monitor.problem,
            **self._process_readiness(),
        }

    async def _database_problem(self) -> str | None:
        try:
            await self._database.check()
        except SagaEngineError as error:
            return str(error)
        return None
