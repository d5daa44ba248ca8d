"""
A worker at work: its loops over connections that are there, and how they come to an end.

    deliveries -> intake -> turnover (batch, commit, outbound) -> acknowledgement

`worker` connects and hands the connections over; a simulation hands over its models. Nothing here
knows which of the two it is.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from saga_engine.amqp.batch_budget import Room
from saga_engine.amqp.consumer import Consumer
from saga_engine.amqp.publisher import Publisher
from saga_engine.errors import SagaEngineError
from saga_engine.payload.encryption import Sealing
from saga_engine.payload.guard import UNWATCHED, Watch
from saga_engine.protocol.limits import limits_of
from saga_engine.protocol.message import Delivery
from saga_engine.protocol.topology import DEAD_LETTERS, REPLIES, REQUESTS
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings
from saga_engine.store import crash_suspects, definitions, engine_identity
from saga_engine.store.database import Database
from saga_engine.store.definitions import presence_of
from saga_engine.store.engine_identity import TokenKeys
from saga_engine.telemetry.events import (
    DatabaseTroubled,
    DefinitionRegistered,
    FaultFound,
    MessagesConsumed,
    Tell,
    described,
)
from saga_engine.worker.batch_runner import Turnover
from saga_engine.worker.decode import read_apart
from saga_engine.worker.duties import Duties
from saga_engine.worker.outbox_publisher import Outbound
from saga_engine.worker.periodic import repeat
from saga_engine.worker.registry import Catalogue
from saga_engine.worker.token_keys import TokenKeyReader, has_unknown_token
from saga_engine.worker.work_item import Intake

QUEUES = (REPLIES, REQUESTS, DEAD_LETTERS)


@dataclass(frozen=True, slots=True)
class Registered:
    """What a worker learns from the database before it works."""

    keys: TokenKeys
    catalogue: Catalogue


async def register(
    database: Database,
    sagas: Sequence[Saga],
    sealing: Sealing,
    tell: Tell,
    settings: Settings,
    watch: Watch = UNWATCHED,
) -> Registered:
    """
    Register *sagas* and read the engine's keys.

    Raises:
        ConfigurationError: a saga has other steps than unfinished runs of the same version.
    """
    async with database.transaction() as tx:
        keys = await engine_identity.token_keys(tx)
        ids = await definitions.register(tx, sagas, presence_of(settings))
        suspected = frozenset(await crash_suspects.every(tx))
    for saga in sagas:
        tell(DefinitionRegistered(saga=saga.name, version=saga.version, steps=tuple(saga.steps)))
    found = {ids[saga.name, saga.version]: saga for saga in sagas}
    catalogue = Catalogue(found, sealing, watch, limits_of(settings))
    catalogue.suspected = suspected
    return Registered(keys, catalogue)


class Shift:
    """
    The work of one worker, from its first delivery until it has drained.

    Any number of them may work on the same database and broker.
    """

    def __init__(
        self,
        registered: Registered,
        database: Database,
        publisher: Publisher,
        consumer: Consumer,
        settings: Settings,
        tell: Tell,
    ) -> None:
        catalogue = registered.catalogue
        self._outbound = outbound = Outbound(
            *(publisher, registered.keys, settings.batch_bytes, tell),
            limits=catalogue.limits,
        )
        self._token_keys = TokenKeyReader(database, outbound, tell)
        self._sealing = catalogue.sealing
        self._consumer = consumer
        self._settings = settings
        self._tell = tell
        self._epoch = consumer.epoch
        self._slots = asyncio.Semaphore(settings.batches_in_flight)
        self._dealing = 0
        self._room = Room(settings.batch_bytes, settings.batch_values, settings.body_bytes)
        self._turnover = Turnover(database, catalogue, outbound, settings, tell)
        self._duties = Duties(database, catalogue, self._turnover, outbound, settings, tell)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until *stop* is set, then until everything in hand is acknowledged."""
        settings, duties = self._settings, self._duties
        periodic = (
            ("waiting", duties.waiting, settings.poll),
            ("returned", duties.returned, settings.poll),
            ("sweep", duties.sweep, settings.outbox_age / 4),
            ("flush", duties.flush, settings.outbox_flush),
            ("suspects", duties.suspects, settings.outbox_age / 4),
            ("presence", duties.presence, settings.worker_heartbeat),
            ("maintenance", duties.maintenance, settings.maintenance),
            ("partitions", duties.partitions, settings.maintenance),
            ("purge", duties.purge, settings.maintenance),
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(self._consume(group))
            for name, duty, interval in periodic:
                looping = repeat(name, duty, interval=interval, stop=stop, on_trouble=self._trouble)
                group.create_task(looping)
            await stop.wait()
            await self._consumer.stop()
        try:
            while await self._duties.returned():
                pass
            await self._duties.flush()
        except SagaEngineError as error:
            self._trouble("drain", error)  # what it would have deleted, the sweep sends again

    async def _consume(self, group: asyncio.TaskGroup) -> None:
        """Hand what has arrived to batches, as many at once as the settings allow."""
        limit = self._settings.batch_size
        while True:
            await self._slots.acquire()
            deliveries = await self._consumer.take(
                limit, self._room, only_urgent=self._is_last_slot
            )
            if not deliveries:
                return  # told to stop, and everything that had arrived is taken
            self._dealing += 1
            if deliveries[-1].epoch != self._epoch:
                self._epoch = deliveries[-1].epoch
                self._turnover.admission.cut_off()  # what came while nobody consumed is late
            group.create_task(self._deal_with(deliveries))

    def _is_last_slot(self) -> bool:
        """Whether all others are taken; requests leave the last for replies of runs under way."""
        return 0 < self._dealing == self._settings.batches_in_flight - 1

    async def _deal_with(self, deliveries: Sequence[Delivery]) -> None:
        try:
            _tell_consumed(self._tell, deliveries)
            intake = await self._read(deliveries)
            left = await self._turnover.take(intake)
            await self._consumer.settle(each for each in deliveries if each not in left)
        except Exception as error:  # noqa: BLE001 - a bug must not stop the other batches
            self._tell(FaultFound(operation="deliveries", problem=described(error)))
        finally:
            self._dealing -= 1
            self._slots.release()
            self._consumer.wake()

    async def _read(self, deliveries: Sequence[Delivery]) -> Intake:
        """Read a batch; again, if a token in it may be of a key that is newer than those here."""
        keys = self._outbound.keys
        intake = await read_apart(deliveries, keys.accepted, self._settings, self._sealing)
        if has_unknown_token(intake) and await self._token_keys.newer_than(keys):
            keys = self._outbound.keys
            intake = await read_apart(deliveries, keys.accepted, self._settings, self._sealing)
        return intake

    def _trouble(self, operation: str, error: Exception) -> None:
        if isinstance(error, SagaEngineError):
            self._tell(DatabaseTroubled(operation=operation, problem=str(error)))
        else:
            self._tell(FaultFound(operation=operation, problem=described(error)))


def _tell_consumed(tell: Tell, deliveries: Sequence[Delivery]) -> None:
    for queue, count in Counter(delivery.queue for delivery in deliveries).items():
        again = sum(each.redelivered for each in deliveries if each.queue == queue)
        tell(MessagesConsumed(queue=queue, messages=count, redelivered=again))
