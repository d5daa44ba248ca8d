"""
The composition root of a participant process: its connections, its dispatcher and its shutdown.

After `stop` is set, `run` ends when every started command is replied to and acknowledged, or at the
deadline; the broker delivers the remaining commands again.
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack

from saga_engine.amqp.consumer import Consumer
from saga_engine.amqp.publisher import Publisher
from saga_engine.containment import guard_event_loop
from saga_engine.encryption.configuration import encryption_from
from saga_engine.engine_process import EngineProcess, Readiness
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
    HandlersRegistered,
    Observer,
    ProcessReady,
    ProcessStopped,
)
from saga_engine.vocabulary import Program


class ParticipantService(EngineProcess):
    """
    The participants of one process; `async with` connects them, `run` runs them.

    Any number of processes may run the same participants.

    Raises:
        ConfigurationError: they cannot work in one process, or a URL or their codec is missing or
            wrong.
        StoreError, BrokerError: on entering, when a server is not usable. Later, the service waits
            for a server that is unavailable.
    """

    def __init__(
        self, participants: Iterable[Participant], settings: Settings, emit: Observer
    ) -> None:
        super().__init__(Program.PARTICIPANT, settings, emit)
        self._participants = _validate_participants(list(participants))
        self._encryption = encryption_from(settings)
        self._databases: dict[str, ParticipantDatabase] = {}
        self._outage_monitors: dict[str, OutageMonitor] = {}
        self._executors: dict[str, Executor] = {}
        self._dispatcher: Dispatcher

    async def _open(self, resources: AsyncExitStack) -> None:
        for participant in self._participants:
            await self._open_participant(participant, resources)
        connections = await self._connect(resources, _combined_topology(self._participants))
        prefetch = self._settings.participant_prefetch
        consumer = await resources.enter_async_context(
            Consumer(connections.consume, list(self._executors), prefetch=prefetch)
        )
        publisher = Publisher(connections.publish)
        self._dispatcher = Dispatcher(
            self._executors, publisher, consumer, self._settings, self._emit
        )

    async def _open_participant(self, participant: Participant, resources: AsyncExitStack) -> None:
        database, outage_monitor = None, None
        if participant.database is not None:
            database = ParticipantDatabase(participant.database, self._settings)
            resources.push_async_callback(database.close)
            await database.prepare(
                create_barrier=participant.create_barrier, schema=participant.barrier_schema
            )
            outage_monitor = OutageMonitor(
                database, self._settings.participant_database_probe_interval, self._emit
            )
            self._databases[participant.name] = database
            self._outage_monitors[participant.name] = outage_monitor
        executor = Executor(
            participant.handlers,
            database,
            self._settings,
            self._emit,
            self._encryption,
            outage_monitor,
        )
        if participant.batch and database is not None:
            executor.enable_batches(database)
        self._executors[participant_queue(participant.name)] = executor
        self._emit(HandlersRegistered(commands=tuple(participant.handlers)))

    async def run(self, stop: asyncio.Event) -> None:
        """
        Execute commands until *stop* is set, then shut down within `shutdown_timeout`.

        Raises:
            HandlersStuck: a handler that ignores its cancellation is running in every slot.
        """
        with guard_event_loop():
            finished_cleanly = await self._run_until_stopped(stop)
        self._emit(ProcessStopped(program=self._program, clean=finished_cleanly))
        if self._dispatcher.stuck.is_set():
            raise HandlersStuck(
                f"All {self._settings.participant_concurrency} slots for handlers"
                " (participant_concurrency) are used by handlers that continued after they were"
                " cancelled. The process ends, so that it is restarted. Let those handlers raise"
                " CancelledError; see handler.abandoned in the log."
            )

    async def _run_until_stopped(self, stop: asyncio.Event) -> bool:
        """Run until stopped or stuck, then shut down; whether all commands got their replies."""
        async with asyncio.TaskGroup() as group:
            background_tasks = [
                *(
                    group.create_task(each.run_lost_statement_monitor(self._emit))
                    for each in self._databases.values()
                ),
                *(group.create_task(each.run()) for each in self._outage_monitors.values()),
                group.create_task(self._measure_loop_lag(stop)),
            ]
            dispatch_task = group.create_task(self._dispatcher.run())
            self._emit(ProcessReady(program=self._program))
            await self._wait_for_stop(stop)
            stuck = self._dispatcher.stuck.is_set()
            finished_cleanly = await self._shut_down(dispatch_task, immediately=stuck)
            for task in background_tasks:
                task.cancel()
        return finished_cleanly

    async def _wait_for_stop(self, stop: asyncio.Event) -> None:
        """Wait until the process must stop, or is stuck."""
        async with asyncio.TaskGroup() as group:
            wait_tasks = [group.create_task(each.wait()) for each in (stop, self._dispatcher.stuck)]
            await asyncio.wait(wait_tasks, return_when=asyncio.FIRST_COMPLETED)
            for each in wait_tasks:
                each.cancel()

    async def _stop_work(self) -> None:
        await self._dispatcher.stop()

    def _on_work_timeout(self, schedule: ShutdownSchedule) -> None:
        for executor in self._executors.values():
            executor.shorten_grace_period(schedule.handler_grace_period)

    async def readiness(self) -> Readiness:
        """Report each dependency of the process; see Readiness."""
        databases = {
            f"database of {name}": self._outage_monitors[name].problem
            or await database.find_problem()
            for name, database in self._databases.items()
        }
        stuck = self._dispatcher.stuck.is_set()
        return {
            **databases,
            "handlers": "all of them are stuck" if stuck else None,
            **self._process_readiness(),
        }


async def run_participants(
    participants: Iterable[Participant], settings: Settings, emit: Observer, stop: asyncio.Event
) -> None:
    """Connect the participants and run them until *stop* is set; see ParticipantService."""
    async with ParticipantService(participants, settings, emit) as service:
        await service.run(stop)


def _validate_participants(participants: Sequence[Participant]) -> Sequence[Participant]:
    """Refuse participants of which two, or none, would handle a command."""
    participant_of_command: dict[str, str] = {}
    names: set[str] = set()
    for participant in participants:
        if participant.name in names:
            raise ConfigurationError(
                f"Two participants are named {participant.name}: they would share a queue."
                " Give each a unique name."
            )
        names.add(participant.name)
        if not participant.handlers:
            raise ConfigurationError(
                f"Participant {participant.name} handles no command. Declare one with"
                f" @{participant.name}.command(...)."
            )
        for command in participant.handlers:
            if command in participant_of_command:
                raise ConfigurationError(
                    f"{participant_of_command[command]} and {participant.name} both handle"
                    f" {command}: it would be executed twice. Remove one of the handlers."
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
