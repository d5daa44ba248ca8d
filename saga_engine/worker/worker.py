"""
The composition root: a worker's connections, its shift, and how it stops.

Everything a worker needs is put together here and nowhere else. `run` ends when it is told to stop
and everything in hand is committed, published and acknowledged, or when the time for that is over;
what is then left unacknowledged is delivered again to another worker.
"""

import asyncio
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Self

from saga_engine.amqp.connection import Link, LinkState, Phase
from saga_engine.amqp.consumer import Consumer
from saga_engine.amqp.publisher import Publisher
from saga_engine.encryption.configuration import sealing_of
from saga_engine.errors import SagaEngineError
from saga_engine.payload.encryption import Sealing
from saga_engine.payload.guard import UNWATCHED, Watch
from saga_engine.protocol.topology import DEAD_LETTERS, ENGINE, REPLIES, REQUESTS
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings
from saga_engine.shutdown import Drain
from saga_engine.store.database import Database
from saga_engine.telemetry.events import (
    LinkChanged,
    LoopMeasured,
    ProcessDraining,
    ProcessReady,
    ProcessStopped,
    Tell,
)
from saga_engine.worker.loops import QUEUES, Shift, register
from saga_engine.worker.periodic import pause
from saga_engine.worker.registry import sound
from saga_engine.worker.time_limit import WatchedCodec

LAG_INTERVAL = 1.0
"""Seconds the event loop is asked to wake us in, to see how late it comes round."""


class Worker:
    """
    One worker process's engine; `async with` connects it, `run` runs it.

    Any number of them may work on the same database and broker.

    Args:
        watch: what interrupts mapping functions and validators that take too long; by default they
            take as long as they take.

    Raises:
        DefinitionError: a saga breaks a rule.
        ConfigurationError: the codec of its payloads is not usable.
        ConfigurationError, StoreError, BrokerError: on entering, when something is not usable;
            afterwards everything that is away is waited for.
    """

    def __init__(
        self,
        sagas: Iterable[Saga],
        settings: Settings,
        tell: Tell,
        watch: Watch = UNWATCHED,
    ) -> None:
        self._sagas = sound(sagas)
        self._settings = settings
        self._sealing = sealing_of(settings)
        if self._sealing.codec is not None:
            self._sealing = Sealing(WatchedCodec(self._sealing.codec, watch))
        self._tell = tell
        self._watch = watch
        self._owned = AsyncExitStack()
        self._draining = False
        self._leave_until: float | None = None
        self._database: Database
        self._publish: Link
        self._consume_link: Link
        self._shift: Shift

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as owned:
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
        """Work until *stop* is set, then finish what is in hand within the `drain` setting."""
        self._tell(ProcessReady(program="worker"))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._measure_loop(stop))
            working = group.create_task(self._shift.run(stop))
            await stop.wait()
            self._draining = True
            self._tell(ProcessDraining(program="worker"))
            clean = await self._drained(working)
        self._tell(ProcessStopped(program="worker", clean=clean))

    async def _drained(self, working: asyncio.Task[None]) -> bool:
        """Finish what is in hand; whether that was done in time."""
        drain, now = Drain(self._settings.drain), asyncio.get_running_loop().time()
        self._leave_until = now + drain.left
        try:
            async with asyncio.timeout_at(now + drain.work):
                await asyncio.wait((working,))
        except TimeoutError:
            working.cancel()  # what is unacknowledged is delivered again, to another worker
            return False
        return True

    async def _measure_loop(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            due = time.perf_counter() + LAG_INTERVAL
            await pause(LAG_INTERVAL, stop)
            if not stop.is_set():
                self._tell(LoopMeasured(lag_s=max(0.0, time.perf_counter() - due)))

    def _link_changed(self, state: LinkState) -> None:
        self._tell(
            LinkChanged(
                role=state.link, phase=state.phase, epoch=state.epoch, problem=state.problem
            )
        )

    async def _connect(self, owned: AsyncExitStack) -> None:
        settings = self._settings
        self._database = await owned.enter_async_context(
            Database(settings.require_database(), settings)
        )
        registered = await register(
            *(self._database, self._sagas, self._sealing, self._tell), settings, self._watch
        )
        url = settings.require_broker()
        self._publish = await owned.enter_async_context(
            Link(
                url,
                name="publish",
                settings=settings,
                topology=ENGINE,
                on_state=self._link_changed,
            )
        )
        self._consume_link = await owned.enter_async_context(
            Link(
                url,
                name="consume",
                settings=settings,
                topology=ENGINE,
                on_state=self._link_changed,
            )
        )
        consumer = await owned.enter_async_context(_consumer(self._consume_link))
        publisher = Publisher(self._publish)
        self._shift = Shift(registered, self._database, publisher, consumer, settings, self._tell)

    async def readiness(self) -> dict[str, str | None]:
        """Each thing a worker needs, and what is wrong with it; None: nothing."""
        return {
            "database": await self._problem_of_the_database(),
            "publishing": _problem_of(self._publish.state),
            "consuming": _problem_of(self._consume_link.state),
            "draining": "it is stopping" if self._draining else None,
        }

    async def _problem_of_the_database(self) -> str | None:
        try:
            await self._database.check()
        except SagaEngineError as error:
            return str(error)
        return None


def _consumer(link: Link) -> Consumer:
    settings = link.settings
    prefetch = {
        REPLIES: settings.prefetch,
        REQUESTS: settings.request_prefetch,
        DEAD_LETTERS: settings.dead_letter_prefetch,
    }
    return Consumer(link, QUEUES, prefetch=prefetch, urgent=(REPLIES,))


def _problem_of(state: LinkState) -> str | None:
    if state.phase is Phase.CONNECTED:
        return None
    return state.problem or f"it is {state.phase}"
