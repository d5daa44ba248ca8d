"""
The worker process: its connections, its readiness and its graceful shutdown.

This is the composition root: everything that a worker needs is created here and nowhere else. `run`
ends once it is asked to stop and everything it has taken is committed, published and acknowledged,
or when `shutdown_timeout` is over. Unacknowledged messages are then redelivered to another worker.
"""

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack

from saga_engine.amqp.publisher import Publisher
from saga_engine.call_time_limit import TimeLimitedCodec
from saga_engine.encryption.configuration import encryption_from
from saga_engine.engine_process import EngineProcess, Readiness
from saga_engine.errors import SagaEngineError
from saga_engine.payload.encryption import PayloadEncryption
from saga_engine.payload.guard import NO_TIME_LIMIT, CallTimeLimit
from saga_engine.protocol.topology import engine_topology
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.sql_store import SqlStore
from saga_engine.telemetry.events import (
    Emitter,
    ProcessReady,
    ProcessStopped,
)
from saga_engine.vocabulary import Program
from saga_engine.worker.loops import WorkerLoops, register_sagas
from saga_engine.worker.message_schemas import register_message_schemas
from saga_engine.worker.registry import validated
from saga_engine.worker.worker_queues import create_consumer


class Worker(EngineProcess):
    """
    One worker; `async with` connects it, `run` runs it.

    Any number of workers may use the same database and broker.

    Args:
        time_limit: interrupts mapping functions and validators that run too long; by default they
            are not limited.

    Raises:
        DefinitionError: a saga breaks a rule.
        ConfigurationError: the payload codec is not usable.
        ConfigurationError, StoreError, BrokerError: on entering, when something is not usable.
            Later, the worker waits for a server that is unavailable.
    """

    def __init__(
        self,
        sagas: Iterable[Saga],
        settings: Settings,
        emit: Emitter,
        time_limit: CallTimeLimit = NO_TIME_LIMIT,
    ) -> None:
        super().__init__(Program.WORKER, settings, emit)
        self._emit: Emitter = emit
        self._sagas = validated(sagas)
        self._encryption = encryption_from(settings)
        if self._encryption.codec is not None:
            self._encryption = PayloadEncryption(
                TimeLimitedCodec(self._encryption.codec, time_limit)
            )
        self._time_limit = time_limit
        self._database: Database
        self._loops: WorkerLoops

    async def _open(self, resources: AsyncExitStack) -> None:
        settings = self._settings
        self._database = await resources.enter_async_context(
            Database(settings.require_database_url(), settings)
        )
        store = SqlStore(self._database)
        registration = await register_sagas(
            store, self._sagas, self._encryption, self._emit, settings, self._time_limit
        )
        await register_message_schemas(
            self._database.transaction, self._sagas, settings, self._emit
        )
        connections = await self._connect(resources, engine_topology(settings.reply_queues))
        consumer = await resources.enter_async_context(create_consumer(connections.consume))
        publisher = Publisher(connections.publish)
        self._loops = WorkerLoops(registration, store, publisher, consumer, settings, self._emit)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until *stop* is set, then shut down within the `shutdown_timeout` setting."""
        self._emit(ProcessReady(program=self._program))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._measure_loop_lag(stop))
            loops_task = group.create_task(self._loops.run(stop))
            await stop.wait()
            clean = await self._shut_down(loops_task)
        self._emit(ProcessStopped(program=self._program, clean=clean))

    async def readiness(self) -> Readiness:
        """Report each dependency of the worker; see Readiness."""
        return {"database": await self._database_problem(), **self._process_readiness()}

    async def _database_problem(self) -> str | None:
        try:
            await self._database.check()
        except SagaEngineError as error:
            return str(error)
        return None
