"""
What the processes of the engine have in common: connections to the broker, lag, and the shutdown.

A worker, a participant service and a client each publish over one connection and consume over the
other; `amqp.connection` says why.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

from saga_engine.amqp.connection import (
    ConnectionStatus,
    StatusObserver,
    SupervisedConnection,
    ignore_status,
)
from saga_engine.lifecycle import AsyncResource
from saga_engine.protocol.topology import Topology
from saga_engine.settings import Settings
from saga_engine.shutdown import ShutdownSchedule
from saga_engine.telemetry.events import (
    BrokerConnectionChanged,
    EventLoopLagMeasured,
    Observer,
    ProcessStopping,
)
from saga_engine.vocabulary import ConnectionRole, ConnectionState, Program
from saga_engine.waiting import wait_for_event

LAG_INTERVAL = 1.0
"""Seconds between two measurements of how late the event loop runs a timer."""

Readiness = dict[str, str | None]
"""Each dependency of a process, and what is wrong with it in a sentence; None: nothing."""


@dataclass(frozen=True, slots=True)
class BrokerConnections:
    """The two connections of one process to the broker."""

    publish: SupervisedConnection
    consume: SupervisedConnection


@asynccontextmanager
async def open_broker_connections(
    settings: Settings,
    *,
    publish_topology: Topology,
    consume_topology: Topology,
    on_status: StatusObserver = ignore_status,
    broker_url: str | None = None,
) -> AsyncIterator[BrokerConnections]:
    """
    Open both connections, the one to publish first.

    Args:
        settings: of the process.
        publish_topology: what the connection to publish declares.
        consume_topology: what the connection to consume declares.
        on_status: called with each change of a connection.
        broker_url: the broker; by default that of the settings.

    Raises:
        ConfigurationError, BrokerError: the broker cannot be used.
    """
    publish, consume = (
        SupervisedConnection(
            broker_url or settings.require_broker_url(),
            role=role,
            settings=settings,
            topology=topology,
            on_status=on_status,
        )
        for role, topology in (
            (ConnectionRole.PUBLISH, publish_topology),
            (ConnectionRole.CONSUME, consume_topology),
        )
    )
    async with publish, consume:
        yield BrokerConnections(publish, consume)


def connection_events(emit: Observer) -> StatusObserver:
    """Return an observer that emits each change of a connection."""

    def emit_changed(status: ConnectionStatus) -> None:
        emit(
            BrokerConnectionChanged(
                connection=status.role,
                state=status.state,
                generation=status.generation,
                problem=status.problem,
            )
        )

    return emit_changed


class EngineProcess(AsyncResource):
    """
    A worker, participant service or projector: `async with` opens it; shut down within a timeout.

    Args:
        program: its name in telemetry.
        settings: with the broker's URL and `shutdown_timeout`.
        emit: receives telemetry.
    """

    def __init__(self, program: Program, settings: Settings, emit: Observer) -> None:
        self._program = program
        self._settings = settings
        self._emit = emit
        self._shutting_down = False
        self._close_deadline: float | None = None
        self._connections: BrokerConnections | None = None

    async def __aexit__(self, *error: object) -> None:
        with suppress(TimeoutError):  # the process ends, and with it the connections still open
            async with asyncio.timeout_at(self._close_deadline):
                await super().__aexit__(*error)

    async def _connect(self, resources: AsyncExitStack, topology: Topology) -> BrokerConnections:
        """Open the connections to the broker; each change of one is emitted."""
        connections = await resources.enter_async_context(
            open_broker_connections(
                self._settings,
                publish_topology=topology,
                consume_topology=topology,
                on_status=connection_events(self._emit),
            )
        )
        self._connections = connections
        return connections

    async def _measure_loop_lag(self, stop: asyncio.Event) -> None:
        """Measure periodically how late the event loop runs a timer, until *stop* is set."""
        while not stop.is_set():
            due = time.perf_counter() + LAG_INTERVAL
            await wait_for_event(stop, LAG_INTERVAL)
            if not stop.is_set():
                self._emit(EventLoopLagMeasured(lag_s=max(0.0, time.perf_counter() - due)))

    def _process_readiness(self) -> Readiness:
        """The part of the readiness that all processes have: the broker, and the shutdown."""
        readiness: Readiness = {"shutting_down": "it is stopping" if self._shutting_down else None}
        if self._connections is not None:
            readiness["publishing"] = connection_problem(self._connections.publish.status)
            readiness["consuming"] = connection_problem(self._connections.consume.status)
        return readiness

    async def _shut_down(self, work: asyncio.Task[None], *, immediately: bool = False) -> bool:
        """
        Let the work finish until the deadline of the shutdown schedule, then cancel it.

        Messages that are then not acknowledged are delivered again, to another process.

        Args:
            work: processes the messages.
            immediately: the deadline is now.

        Returns:
            Whether the work finished before the deadline.
        """
        self._shutting_down = True
        self._emit(ProcessStopping(program=self._program))
        schedule = ShutdownSchedule(self._settings.shutdown_timeout)
        now = asyncio.get_running_loop().time()
        self._close_deadline = now + schedule.close_deadline
        try:
            async with asyncio.timeout_at(now if immediately else now + schedule.work_deadline):
                await self._stop_work()
                await asyncio.wait((work,))
        except TimeoutError:
            self._on_work_timeout(schedule)
            work.cancel()
            return False
        return True

    async def _stop_work(self) -> None:
        """Make the work finish; the work of a worker watches its stop event."""

    def _on_work_timeout(self, schedule: ShutdownSchedule) -> None:
        """Prepare for the cancellation of work that did not finish before the deadline."""


def connection_problem(status: ConnectionStatus) -> str | None:
    """Return what is wrong with a connection in a sentence; None: nothing."""
    if status.state is ConnectionState.CONNECTED:
        return None
    return status.problem or f"it is {status.state}"
