"""
The worker process: its connections, its readiness and its graceful shutdown.

This is the composition root: everything that a worker needs is created here and nowhere else. `run`
ends once it is asked to stop and everything it has taken is committed, published and acknowledged,
or when `shutdown_timeout` is over. Unacknowledged messages are then redelivered to another worker.
"""

import asyncio
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Self

from saga_engine.amqp.connection import ConnectionStatus, SupervisedConnection
from saga_engine.amqp.consumer import Consumer
from saga_engine.amqp.publisher import Publisher
from saga_engine.encryption.configuration import encryption_from
from saga_engine.errors import SagaEngineError
from saga_engine.payload.encryption import PayloadEncryption
from saga_engine.payload.guard import NO_TIME_LIMIT, CallTimeLimit
from saga_engine.protocol.topology import DEAD_LETTERS, ENGINE_TOPOLOGY, REPLIES, REQUESTS
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings
from saga_engine.shutdown import ShutdownSchedule
from saga_engine.store.database import Database
from saga_engine.telemetry.events import (
    BrokerConnectionChanged,
    Emitter,
    EventLoopLagMeasured,
    ProcessReady,
    ProcessStopped,
    ProcessStopping,
)
from saga_engine.vocabulary import ConnectionState
from saga_engine.waiting import wait_for_event
from saga_engine.worker.loops import WORKER_QUEUES, WorkerLoops, register_sagas
from saga_engine.worker.registry import validated
from saga_engine.worker.time_limit import TimeLimitedCodec

LAG_INTERVAL = 1.0
"""Seconds between two measurements of how late the event loop runs a timer."""


class Worker:
    """
    One worker; `async with` connects it, `run` runs it.

    Any number of workers may use the same database and broker.

    Args:
        watch: interrupts mapping functions and validators that run too long; by default they are
            not limited.

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
        watch: CallTimeLimit = NO_TIME_LIMIT,
    ) -> None:
        self._sagas = validated(sagas)
        self._settings = settings
        self._encryption = encryption_from(settings)
        if self._encryption.codec is not None:
            self._encryption = PayloadEncryption(TimeLimitedCodec(self._encryption.codec, watch))
        self._emit = emit
        self._watch = watch
        self._resources = AsyncExitStack()
        self._shutting_down = False
        self._shutdown_deadline: float | None = None
        self._database: Database
        self._publish_connection: SupervisedConnection
        self._consume_connection: SupervisedConnection
        self._loops: WorkerLoops

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as resources:
            await self._connect(resources)
            self._resources = resources.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What is still open after the deadline ends with the process.
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._shutdown_deadline):
                await self._resources.aclose()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until *stop* is set, then shut down within the `shutdown_timeout` setting."""
        self._emit(ProcessReady(program="worker"))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._measure_loop_lag(stop))
            loops_task = group.create_task(self._loops.run(stop))
            await stop.wait()
            self._shutting_down = True
            self._emit(ProcessStopping(program="worker"))
            clean = await self._finish_before_timeout(loops_task)
        self._emit(ProcessStopped(program="worker", clean=clean))

    async def _finish_before_timeout(self, loops_task: asyncio.Task[None]) -> bool:
        """Let the loops finish what they have taken; whether they did so in time."""
        shutdown = ShutdownSchedule(self._settings.shutdown_timeout)
        now = asyncio.get_running_loop().time()
        self._shutdown_deadline = now + shutdown.close_deadline
        try:
            async with asyncio.timeout_at(now + shutdown.work_deadline):
                await asyncio.wait((loops_task,))
        except TimeoutError:
            loops_task.cancel()  # unacknowledged messages are redelivered to another worker
            return False
        return True

    async def _measure_loop_lag(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            due = time.perf_counter() + LAG_INTERVAL
            await wait_for_event(stop, LAG_INTERVAL)
            if not stop.is_set():
                self._emit(EventLoopLagMeasured(lag_s=max(0.0, time.perf_counter() - due)))

    def _connection_changed(self, state: ConnectionStatus) -> None:
        self._emit(
            BrokerConnectionChanged(
                connection=state.name,
                state=state.state,
                generation=state.generation,
                problem=state.problem,
            )
        )

    async def _connect(self, resources: AsyncExitStack) -> None:
        settings = self._settings
        self._database = await resources.enter_async_context(
            Database(settings.require_database_url(), settings)
        )
        registration = await register_sagas(
            self._database, self._sagas, self._encryption, self._emit, settings, self._watch
        )
        url = settings.require_broker_url()
        self._publish_connection = await resources.enter_async_context(
            SupervisedConnection(
                url,
                name="publish",
                settings=settings,
                topology=ENGINE_TOPOLOGY,
                on_status=self._connection_changed,
            )
        )
        self._consume_connection = await resources.enter_async_context(
            SupervisedConnection(
                url,
                name="consume",
                settings=settings,
                topology=ENGINE_TOPOLOGY,
                on_status=self._connection_changed,
            )
        )
        consumer = await resources.enter_async_context(_create_consumer(self._consume_connection))
        publisher = Publisher(self._publish_connection)
        self._loops = WorkerLoops(
            registration, self._database, publisher, consumer, settings, self._emit
        )

    async def readiness(self) -> dict[str, str | None]:
        """Each thing a worker needs, with its problem; None if it has none."""
        return {
            "database": await self._database_problem(),
            "publishing": _connection_problem(self._publish_connection.status),
            "consuming": _connection_problem(self._consume_connection.status),
            "shutting_down": "it is stopping" if self._shutting_down else None,
        }

    async def _database_problem(self) -> str | None:
        try:
            await self._database.check()
        except SagaEngineError as error:
            return str(error)
        return None


def _create_consumer(connection: SupervisedConnection) -> Consumer:
    settings = connection.settings
    prefetch = {
        REPLIES: settings.reply_prefetch,
        REQUESTS: settings.request_prefetch,
        DEAD_LETTERS: settings.dead_letter_prefetch,
    }
    return Consumer(connection, WORKER_QUEUES, prefetch=prefetch, urgent=(REPLIES,))


def _connection_problem(state: ConnectionStatus) -> str | None:
    if state.state is ConnectionState.CONNECTED:
        return None
    return state.problem or f"it is {state.state}"
