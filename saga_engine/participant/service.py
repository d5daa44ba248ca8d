"""
The composition root of a participant process: its connections, its shift, and how it stops.

`run` ends when it is told to stop and everything in hand is answered and
acknowledged, or when the time for that is over; the broker delivers the rest again.
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Self

from saga_engine.amqp.connection import ConnectionStatus, SupervisedConnection
from saga_engine.amqp.consumer import Consumer
from saga_engine.amqp.publisher import Publisher
from saga_engine.containment import guard_event_loop
from saga_engine.encryption.configuration import encryption_from
from saga_engine.errors import ConfigurationError, HandlersStuck
from saga_engine.participant.database import ParticipantDatabase
from saga_engine.participant.dispatcher import Dispatcher
from saga_engine.participant.executor import Executor
from saga_engine.participant.outage import OutageMonitor
from saga_engine.participant.participant import Participant
from saga_engine.protocol.topology import Topology, participant_queue, participant_topology
from saga_engine.settings import Settings
from saga_engine.shutdown import ShutdownSchedule
from saga_engine.telemetry.events import (
    BrokerConnectionChanged,
    HandlersRegistered,
    Observer,
    ProcessReady,
    ProcessStopped,
    ProcessStopping,
)
from saga_engine.vocabulary import ConnectionState

PROGRAM = "participant"


class ParticipantService:
    """
    The participants of one process; `async with` connects them, `run` runs them.

    Any number of processes may run the same participants.

    Raises:
        ConfigurationError: they cannot work in one process, or a URL or their codec is missing or
            wrong.
        StoreError, BrokerError: on entering, when something is not usable; afterwards everything
            that is away is waited for.
    """

    def __init__(
        self, participants: Iterable[Participant], settings: Settings, emit: Observer
    ) -> None:
        self._participants = _validate_participants(list(participants))
        self._settings = settings
        self._encryption = encryption_from(settings)
        self._emit = emit
        self._exit_stack = AsyncExitStack()
        self._shutting_down = False
        self._close_deadline: float | None = None
        self._databases: dict[str, ParticipantDatabase] = {}
        self._outage_monitors: dict[str, OutageMonitor] = {}
        self._executors: dict[str, Executor] = {}
        self._connections: tuple[SupervisedConnection, SupervisedConnection]
        self._dispatcher: Dispatcher

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as exit_stack:
            for participant in self._participants:
                await self._open_participant(participant, exit_stack)
            await self._connect(exit_stack)
            self._exit_stack = exit_stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What is still open when the time for leaving is over ends with the process.
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._close_deadline):
                await self._exit_stack.aclose()

    async def run(self, stop: asyncio.Event) -> None:
        """Perform commands until *stop* is set, then shut down within `shutdown_timeout`."""
        with guard_event_loop():
            finished_cleanly = await self._run_until_stopped(stop)
        self._emit(ProcessStopped(program=PROGRAM, clean=finished_cleanly))
        if self._dispatcher.stuck.is_set():
            raise HandlersStuck(
                f"All {self._settings.participant_concurrency} places for handlers"
                " (participant_concurrency) are taken by handlers that went on after they were"
                " cancelled. The process ends, so that it is started again. Let those handlers"
                " pass CancelledError on; see handler.abandoned in the log."
            )

    async def _run_until_stopped(self, stop: asyncio.Event) -> bool:
        """Work until stopped or stuck, then drain; whether nothing in hand was left behind."""
        async with asyncio.TaskGroup() as group:
            background_tasks = [
                *(
                    group.create_task(each.run_lost_statement_monitor(self._emit))
                    for each in self._databases.values()
                ),
                *(group.create_task(each.run()) for each in self._outage_monitors.values()),
            ]
            dispatch_task = group.create_task(self._dispatcher.run())
            self._emit(ProcessReady(program=PROGRAM))
            await self._wait_for_stop(stop)
            self._shutting_down = True
            self._emit(ProcessStopping(program=PROGRAM))
            finished_cleanly = await self._finish_work(dispatch_task)
            for task in background_tasks:
                task.cancel()
        return finished_cleanly

    async def _wait_for_stop(self, stop: asyncio.Event) -> None:
        """Wait until the process is to stop, or is stuck."""
        async with asyncio.TaskGroup() as group:
            wait_tasks = [group.create_task(each.wait()) for each in (stop, self._dispatcher.stuck)]
            await asyncio.wait(wait_tasks, return_when=asyncio.FIRST_COMPLETED)
            for each in wait_tasks:
                each.cancel()

    async def _finish_work(self, dispatch_task: asyncio.Task[None]) -> bool:
        """Finish what is in hand; what does not end in time is cancelled, and left if need be."""
        shutdown, now = (
            ShutdownSchedule(self._settings.shutdown_timeout),
            asyncio.get_running_loop().time(),
        )
        self._close_deadline = now + shutdown.close_deadline
        try:
            async with asyncio.timeout_at(
                now if self._dispatcher.stuck.is_set() else now + shutdown.work_deadline
            ):
                await self._dispatcher.drain()
                await asyncio.wait((dispatch_task,))
        except TimeoutError:
            for executor in self._executors.values():
                executor.shorten_grace_period(shutdown.handler_grace_period)
            dispatch_task.cancel()
            return False
        return True

    async def readiness(self) -> dict[str, str | None]:
        """Each thing the process needs, and what is wrong with it; None: nothing."""
        publish_connection, consume_connection = self._connections
        databases = {
            f"database of {name}": self._outage_monitors[name].problem
            or await database.find_problem()
            for name, database in self._databases.items()
        }
        stuck = self._dispatcher.stuck.is_set()
        return {
            **databases,
            "handlers": "all of them are stuck" if stuck else None,
            "publishing": _connection_problem(publish_connection.status),
            "consuming": _connection_problem(consume_connection.status),
            "shutting_down": "it is stopping" if self._shutting_down else None,
        }

    async def _open_participant(self, participant: Participant, exit_stack: AsyncExitStack) -> None:
        database = None
        if participant.database is not None:
            database = ParticipantDatabase(participant.database, self._settings)
            exit_stack.push_async_callback(database.close)
            await database.prepare(
                create_barrier=participant.create_barrier, schema=participant.barrier_schema
            )
            self._databases[participant.name] = database
        executor = Executor(
            participant.handlers, database, self._settings, self._emit, self._encryption
        )
        if database is not None:
            outage_monitor = OutageMonitor(
                database, self._settings.participant_database_probe_interval, self._emit
            )
            executor.outage_monitor = self._outage_monitors[participant.name] = outage_monitor
        self._executors[participant_queue(participant.name)] = executor
        self._emit(HandlersRegistered(commands=tuple(participant.handlers)))

    async def _connect(self, exit_stack: AsyncExitStack) -> None:
        topology = _combined_topology(self._participants)
        publish_connection, consume_connection = (
            SupervisedConnection(
                self._settings.require_broker_url(),
                name=name,
                settings=self._settings,
                topology=topology,
                on_status=self._emit_connection_changed,
            )
            for name in ("publish", "consume")
        )
        self._connections = (
            await exit_stack.enter_async_context(publish_connection),
            await exit_stack.enter_async_context(consume_connection),
        )
        prefetch = self._settings.participant_prefetch
        consumer = Consumer(consume_connection, list(self._executors), prefetch=prefetch)
        await exit_stack.enter_async_context(consumer)
        self._dispatcher = Dispatcher(
            self._executors, Publisher(publish_connection), consumer, self._settings, self._emit
        )

    def _emit_connection_changed(self, state: ConnectionStatus) -> None:
        self._emit(
            BrokerConnectionChanged(
                connection=state.name,
                state=state.state,
                generation=state.generation,
                problem=state.problem,
            )
        )


async def run_participants(
    participants: Iterable[Participant], settings: Settings, emit: Observer, stop: asyncio.Event
) -> None:
    """Connect the participants and run them until *stop* is set; see Service."""
    async with ParticipantService(participants, settings, emit) as service:
        await service.run(stop)


def _validate_participants(participants: Sequence[Participant]) -> Sequence[Participant]:
    """Refuse what would have one command done twice, or by nobody."""
    participant_of_command: dict[str, str] = {}
    names: set[str] = set()
    for participant in participants:
        if participant.name in names:
            raise ConfigurationError(
                f"Two participants are called {participant.name}: they would share a queue."
                " Give each a name of its own."
            )
        names.add(participant.name)
        if not participant.handlers:
            raise ConfigurationError(
                f"Participant {participant.name} performs no command. Declare one with"
                f" @{participant.name}.command(...)."
            )
        for command in participant.handlers:
            if command in participant_of_command:
                raise ConfigurationError(
                    f"{participant_of_command[command]} and {participant.name} both perform"
                    f" {command}: it would be"
                    " done twice. Let one of them."
                )
            participant_of_command[command] = participant.name
    return participants


def _combined_topology(participants: Sequence[Participant]) -> Topology:
    topologies = [participant_topology(each.name, tuple(each.handlers)) for each in participants]
    return Topology(
        exchanges=tuple(
            dict.fromkeys(each for topology in topologies for each in topology.exchanges)
        ),
        queues=tuple(each for topology in topologies for each in topology.queues),
        bindings=tuple(each for topology in topologies for each in topology.bindings),
    )


def _connection_problem(state: ConnectionStatus) -> str | None:
    if state.state is ConnectionState.CONNECTED:
        return None
    return state.problem or f"it is {state.state}"
