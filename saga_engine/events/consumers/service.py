"""
The process of consumers: opened, run and shut down, with its readiness.

After `stop` is set, `run` ends when the batches in progress are committed and acknowledged, or at
the deadline; what is not acknowledged is delivered again, to another process.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

from saga_engine.engine_process import EngineProcess, Readiness
from saga_engine.events.consumers.consumer import Consumer
from saga_engine.events.consumers.consumer_monitor import ConsumerMonitor
from saga_engine.events.consumers.event_consumption import EventConsumption
from saga_engine.events.readers.progress_monitor import ProgressMonitor
from saga_engine.payload.guard import NO_TIME_LIMIT, CallTimeLimit
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE
from saga_engine.telemetry.events import (
    ConsumersRegistered,
    Observer,
    ProcessReady,
    ProcessStopped,
)
from saga_engine.vocabulary import Program


class ConsumerService(EngineProcess):
    """
    The consumers of one process; `async with` opens them, `run` runs them.

    Any number of processes may run the same ones; each partition is consumed by one at a time.

    Args:
        consumers: their names are different.
        settings: `database_url` is the database of their effects.
        emit: takes telemetry events.
        time_limit: interrupts models and upcasters.

    Raises:
        DefinitionError, ConfigurationError: see EventConsumption.
        StoreError, BrokerError: on entering, when a server is not usable. Later, the service waits
            for a server that is unavailable.
    """

    def __init__(
        self,
        consumers: Sequence[Consumer],
        settings: Settings,
        emit: Observer,
        time_limit: CallTimeLimit = NO_TIME_LIMIT,
    ) -> None:
        super().__init__(Program.CONSUMER, settings, emit)
        url = settings.require_database_url()
        self._consumers = consumers
        self._consumption = EventConsumption(consumers, url, settings, emit, time_limit)
        # Of its own, so that busy consumers neither delay it nor hide that they are stuck.
        self._database = Database(url, settings, EVENT_DATABASE)
        self._measured = ConsumerMonitor(
            self._database,
            self._consumption,
            self._consumption.owner,
            settings,
            emit,
        )
        self._monitor = ProgressMonitor([self._measured], settings, emit)

    async def _open(self, resources: AsyncExitStack) -> None:
        await resources.enter_async_context(self._database)
        names = tuple(each.name for each in self._consumers)
        self._emit(ConsumersRegistered(consumers=names))
        await resources.enter_async_context(self._consumption)

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until *stop* is set, then shut down within `shutdown_timeout`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._monitor.run(stop))
            group.create_task(self._measure_loop_lag(stop))
            work = group.create_task(self._consumption.run(stop))
            self._emit(ProcessReady(program=self._program))
            await stop.wait()
            clean = await self._shut_down(work)
        self._emit(ProcessStopped(program=self._program, clean=clean))

    async def readiness(self) -> Readiness:
        """Report each dependency of the process; see Readiness."""
        registry = self._consumption.registry
        return {
            "database": await self._database.find_problem(),
            **({"registry": await registry.find_problem()} if registry else {}),
            "consuming": self._consumption.problem,
            "consumers": self._measured.problem,
            **self._process_readiness(),
        }
