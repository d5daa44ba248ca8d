"""
The composition root: a worker's connections, its loops, and how it stops.

    deliveries -> intake -> turnover (batch, commit, outbound) -> acknowledgement

Everything a worker needs is put together here and nowhere else. `run` ends when it is told to stop
and everything in hand is committed, published and acknowledged, or when the time for that is over;
what is then left unacknowledged is delivered again to another worker.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from saga_engine.broker.connection import Link, LinkState, Phase
from saga_engine.broker.consumer import Consumer
from saga_engine.broker.publisher import Publisher
from saga_engine.broker.topology import DEAD_LETTERS, ENGINE, REPLIES, REQUESTS
from saga_engine.broker.wire import Delivery
from saga_engine.codec.configured import sealing_of
from saga_engine.errors import SagaEngineError
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings
from saga_engine.store import definitions, identity
from saga_engine.store.database import Database, Transaction
from saga_engine.telemetry.facts import (
    DatabaseTroubled,
    DefinitionRegistered,
    FaultFound,
    LinkChanged,
    LoopMeasured,
    MessagesConsumed,
    ProcessDraining,
    ProcessReady,
    ProcessStopped,
    Tell,
    described,
)
from saga_engine.worker.catalogue import Catalogue, sound
from saga_engine.worker.duties import Duties
from saga_engine.worker.intake import read
from saga_engine.worker.loop import repeat
from saga_engine.worker.outbound import Outbound
from saga_engine.worker.turnover import Turnover

QUEUES = (REPLIES, REQUESTS, DEAD_LETTERS)

LEAVING = 5.0
"""Seconds of the `drain` setting that are kept for saying goodbye to broker and database."""

LAG_INTERVAL = 1.0
"""Seconds the event loop is asked to wake us in, to see how late it comes round."""


class Worker:
    """
    One worker process's engine; `async with` connects it, `run` runs it.

    Any number of them may work on the same database and broker.

    Raises:
        DefinitionError: a saga breaks a rule.
        ConfigurationError: the codec of its payloads is not usable.
        ConfigurationError, StoreError, BrokerError: on entering, when something is not usable;
            afterwards everything that is away is waited for.
    """

    def __init__(self, sagas: Iterable[Saga], settings: Settings, tell: Tell) -> None:
        self._sagas = sound(sagas)
        self._settings = settings
        self._sealing = sealing_of(settings)
        self._tell = tell
        self._owned = AsyncExitStack()
        self._draining = False
        self._slots = asyncio.Semaphore(settings.batches_in_flight)
        self._key = b""
        self._database: Database
        self._publish: Link
        self._consume_link: Link
        self._consumer: Consumer
        self._turnover: Turnover
        self._duties: Duties

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
        await self._owned.aclose()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until *stop* is set, then finish what is in hand within the `drain` setting."""
        self._tell(ProcessReady(program="worker"))
        async with asyncio.TaskGroup() as group:
            working = group.create_task(self._work(stop))
            await stop.wait()
            self._draining = True
            self._tell(ProcessDraining(program="worker"))
            drain = self._settings.drain
            done, _ = await asyncio.wait([working], timeout=max(drain - LEAVING, drain / 2))
            if not done:
                working.cancel()  # what is unacknowledged is delivered again, to another worker
        self._tell(ProcessStopped(program="worker", clean=bool(done)))

    async def _work(self, stop: asyncio.Event) -> None:
        settings, duties = self._settings, self._duties
        periodic = (
            ("waiting", duties.waiting, settings.poll),
            ("returned", duties.returned, settings.poll),
            ("sweep", duties.sweep, settings.outbox_age / 4),
            ("flush", duties.flush, settings.outbox_flush),
            ("maintenance", duties.maintenance, settings.maintenance),
            ("loop", self._measure_loop, LAG_INTERVAL),
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(self._consume(group))
            for name, duty, interval in periodic:
                looping = repeat(name, duty, interval=interval, stop=stop, on_trouble=self._trouble)
                group.create_task(looping)
            await stop.wait()
            await self._consumer.stop()
        try:
            await self._duties.returned()
            await self._duties.flush()
        except SagaEngineError as error:
            self._trouble("drain", error)  # what it would have deleted, the sweep sends again

    async def _consume(self, group: asyncio.TaskGroup) -> None:
        """Hand what has arrived to batches, as many at once as the settings allow."""
        while True:
            await self._slots.acquire()
            deliveries = await self._consumer.take(self._settings.batch_size)
            if not deliveries:
                return  # told to stop, and everything that had arrived is taken
            group.create_task(self._deal_with(deliveries))

    async def _deal_with(self, deliveries: Sequence[Delivery]) -> None:
        try:
            _tell_consumed(self._tell, deliveries)
            intake = read(deliveries, self._key, self._settings, self._sealing)
            left = await self._turnover.take(intake)
            await self._consumer.settle(each for each in deliveries if each not in left)
        finally:
            self._slots.release()

    async def _measure_loop(self) -> bool:
        due = time.perf_counter() + LAG_INTERVAL
        await asyncio.sleep(LAG_INTERVAL)
        self._tell(LoopMeasured(lag_s=max(0.0, time.perf_counter() - due)))
        return True

    def _trouble(self, operation: str, error: Exception) -> None:
        if isinstance(error, SagaEngineError):
            self._tell(DatabaseTroubled(operation=operation, problem=str(error)))
        else:
            self._tell(FaultFound(operation=operation, problem=described(error)))

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
        async with self._database.transaction() as tx:
            self._key = await identity.token_key(tx)
            catalogue = await self._register(tx)
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
        self._consumer = await owned.enter_async_context(Consumer(self._consume_link, QUEUES))
        outbound = Outbound(Publisher(self._publish), self._key, self._tell)
        self._turnover = Turnover(self._database, catalogue, outbound, settings, self._tell)
        self._duties = Duties(
            self._database, catalogue, self._turnover, outbound, settings, self._tell
        )

    async def _register(self, tx: Transaction) -> Catalogue:
        ids = await definitions.register(tx, self._sagas)
        for saga in self._sagas:
            self._tell(
                DefinitionRegistered(saga=saga.name, version=saga.version, steps=tuple(saga.steps))
            )
        sagas = {ids[saga.name, saga.version]: saga for saga in self._sagas}
        return Catalogue(sagas, self._sealing)

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


def _problem_of(state: LinkState) -> str | None:
    if state.phase is Phase.CONNECTED:
        return None
    return state.problem or f"it is {state.phase}"


def _tell_consumed(tell: Tell, deliveries: Sequence[Delivery]) -> None:
    for queue, count in Counter(delivery.queue for delivery in deliveries).items():
        again = sum(each.redelivered for each in deliveries if each.queue == queue)
        tell(MessagesConsumed(queue=queue, messages=count, redelivered=again))
