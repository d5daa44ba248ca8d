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

from saga_engine.amqp.connection import Link, LinkState, Phase
from saga_engine.amqp.consumer import Consumer
from saga_engine.amqp.publisher import Publisher
from saga_engine.containment import contained
from saga_engine.encryption.configuration import sealing_of
from saga_engine.errors import ConfigurationError, HandlersStuck
from saga_engine.participant.database import Database
from saga_engine.participant.dispatcher import Shift
from saga_engine.participant.executor import Performer
from saga_engine.participant.outage import Outage
from saga_engine.participant.participant import Participant
from saga_engine.protocol.topology import Topology, participant_queue, participant_topology
from saga_engine.settings import Settings
from saga_engine.shutdown import Drain
from saga_engine.telemetry.events import (
    HandlersRegistered,
    LinkChanged,
    Observer,
    ProcessDraining,
    ProcessReady,
    ProcessStopped,
)

PROGRAM = "participant"


class Service:
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
        self, participants: Iterable[Participant], settings: Settings, tell: Observer
    ) -> None:
        self._participants = _distinct(list(participants))
        self._settings = settings
        self._sealing = sealing_of(settings)
        self._tell = tell
        self._owned = AsyncExitStack()
        self._draining = False
        self._leave_until: float | None = None
        self._databases: dict[str, Database] = {}
        self._outages: dict[str, Outage] = {}
        self._performers: dict[str, Performer] = {}
        self._links: tuple[Link, Link]
        self._shift: Shift

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as owned:
            for participant in self._participants:
                await self._prepare(participant, owned)
            await self._connect(owned)
            self._owned = owned.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What is still open when the time for leaving is over ends with the process.
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._leave_until):
                await self._owned.aclose()

    async def run(self, stop: asyncio.Event) -> None:
        """Perform commands until *stop* is set, then finish what is in hand within `drain`."""
        with contained():
            clean = await self._run(stop)
        self._tell(ProcessStopped(program=PROGRAM, clean=clean))
        if self._shift.stuck.is_set():
            raise HandlersStuck(
                f"All {self._settings.participant_concurrency} places for handlers"
                " (participant_concurrency) are taken by handlers that went on after they were"
                " cancelled. The process ends, so that it is started again. Let those handlers"
                " pass CancelledError on; see handler.abandoned in the log."
            )

    async def _run(self, stop: asyncio.Event) -> bool:
        """Work until stopped or stuck, then drain; whether nothing in hand was left behind."""
        async with asyncio.TaskGroup() as group:
            watching = [
                *(group.create_task(each.watch(self._tell)) for each in self._databases.values()),
                *(group.create_task(each.run()) for each in self._outages.values()),
            ]
            working = group.create_task(self._shift.run())
            self._tell(ProcessReady(program=PROGRAM))
            await self._until(stop)
            self._draining = True
            self._tell(ProcessDraining(program=PROGRAM))
            clean = await self._drained(working)
            for task in watching:
                task.cancel()
        return clean

    async def _until(self, stop: asyncio.Event) -> None:
        """Wait until the process is to stop, or is stuck."""
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(each.wait()) for each in (stop, self._shift.stuck)]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for each in waiting:
                each.cancel()

    async def _drained(self, working: asyncio.Task[None]) -> bool:
        """Finish what is in hand; what does not end in time is cancelled, and left if need be."""
        drain, now = Drain(self._settings.drain), asyncio.get_running_loop().time()
        self._leave_until = now + drain.left
        try:
            async with asyncio.timeout_at(now if self._shift.stuck.is_set() else now + drain.work):
                await self._shift.drain()
                await asyncio.wait((working,))
        except TimeoutError:
            for performer in self._performers.values():
                performer.hurry(drain.grace)
            working.cancel()
            return False
        return True

    async def readiness(self) -> dict[str, str | None]:
        """Each thing the process needs, and what is wrong with it; None: nothing."""
        publish, consume = self._links
        databases = {
            f"database of {name}": self._outages[name].problem or await database.problem()
            for name, database in self._databases.items()
        }
        stuck = self._shift.stuck.is_set()
        return {
            **databases,
            "handlers": "all of them are stuck" if stuck else None,
            "publishing": _problem_of(publish.state),
            "consuming": _problem_of(consume.state),
            "draining": "it is stopping" if self._draining else None,
        }

    async def _prepare(self, participant: Participant, owned: AsyncExitStack) -> None:
        database = None
        if participant.database is not None:
            database = Database(participant.database, self._settings)
            owned.push_async_callback(database.close)
            await database.prepare(
                create_barrier=participant.create_barrier, schema=participant.barrier_schema
            )
            self._databases[participant.name] = database
        performer = Performer(
            participant.handlers, database, self._settings, self._tell, self._sealing
        )
        if database is not None:
            outage = Outage(database, self._settings.participant_probe, self._tell)
            performer.outage = self._outages[participant.name] = outage
        self._performers[participant_queue(participant.name)] = performer
        self._tell(HandlersRegistered(commands=tuple(participant.handlers)))

    async def _connect(self, owned: AsyncExitStack) -> None:
        topology = _topology(self._participants)
        publish, consume = (
            Link(
                self._settings.require_broker(),
                name=name,
                settings=self._settings,
                topology=topology,
                on_state=self._observe,
            )
            for name in ("publish", "consume")
        )
        self._links = (
            await owned.enter_async_context(publish),
            await owned.enter_async_context(consume),
        )
        prefetch = self._settings.participant_prefetch
        consumer = Consumer(consume, list(self._performers), prefetch=prefetch)
        await owned.enter_async_context(consumer)
        self._shift = Shift(
            self._performers, Publisher(publish), consumer, self._settings, self._tell
        )

    def _observe(self, state: LinkState) -> None:
        self._tell(
            LinkChanged(
                role=state.link, phase=state.phase, epoch=state.epoch, problem=state.problem
            )
        )


async def run(
    participants: Iterable[Participant], settings: Settings, tell: Observer, stop: asyncio.Event
) -> None:
    """Connect the participants and run them until *stop* is set; see Service."""
    async with Service(participants, settings, tell) as service:
        await service.run(stop)


def _distinct(participants: Sequence[Participant]) -> Sequence[Participant]:
    """Refuse what would have one command done twice, or by nobody."""
    owner: dict[str, str] = {}
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
            if command in owner:
                raise ConfigurationError(
                    f"{owner[command]} and {participant.name} both perform {command}: it would be"
                    " done twice. Let one of them."
                )
            owner[command] = participant.name
    return participants


def _topology(participants: Sequence[Participant]) -> Topology:
    parts = [participant_topology(each.name, tuple(each.handlers)) for each in participants]
    return Topology(
        exchanges=tuple(dict.fromkeys(each for part in parts for each in part.exchanges)),
        queues=tuple(each for part in parts for each in part.queues),
        bindings=tuple(each for part in parts for each in part.bindings),
    )


def _problem_of(state: LinkState) -> str | None:
    if state.phase is Phase.CONNECTED:
        return None
    return state.problem or f"it is {state.phase}"
