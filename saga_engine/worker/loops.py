"""
A worker's loops over its connections, and its graceful shutdown.

    deliveries -> decode -> batch runner (transaction, commit, publish) -> acknowledge

`worker` connects and passes the connections in; a simulation passes its models. Nothing here knows
which of the two it is.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from saga_engine.amqp.batch_budget import BatchBudget
from saga_engine.amqp.interfaces import MessageConsumer, MessagePublisher
from saga_engine.errors import SagaEngineError
from saga_engine.payload.encryption import PayloadEncryption
from saga_engine.payload.guard import NO_TIME_LIMIT, CallTimeLimit
from saga_engine.protocol.limits import body_limits
from saga_engine.protocol.message import Delivery
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings
from saga_engine.store.definitions import presence_policy
from saga_engine.store.engine_identity import TokenKeys
from saga_engine.store.interfaces import Store
from saga_engine.telemetry.events import (
    DatabaseUnavailable,
    DefinitionRegistered,
    Emitter,
    InternalErrorCaught,
    MessagesConsumed,
    describe_error,
)
from saga_engine.telemetry.operations import Operation
from saga_engine.worker.batch_runner import BatchRunner
from saga_engine.worker.decode import decode_deliveries
from saga_engine.worker.duties import Duties
from saga_engine.worker.outbox_publisher import OutboxPublisher
from saga_engine.worker.periodic import run_periodically
from saga_engine.worker.registry import SagaRegistry
from saga_engine.worker.token_keys import TokenKeyReader, has_unknown_token
from saga_engine.worker.transaction_runner import TransactionRunner
from saga_engine.worker.work_item import WorkBatch


@dataclass(frozen=True, slots=True)
class Registration:
    """What a worker reads from the database before it starts."""

    token_keys: TokenKeys
    registry: SagaRegistry


async def register_sagas(
    store: Store,
    sagas: Sequence[Saga],
    encryption: PayloadEncryption,
    emit: Emitter,
    settings: Settings,
    time_limit: CallTimeLimit = NO_TIME_LIMIT,
) -> Registration:
    """
    Register *sagas* and read the engine's keys.

    Raises:
        ConfigurationError: a saga has other steps than unfinished runs of the same version.
    """
    async with store.transaction() as tx:
        token_keys = await tx.token_keys()
        definition_ids = await tx.register_definitions(sagas, presence_policy(settings))
        suspect_run_ids = frozenset(await tx.read_suspects())
    for saga in sagas:
        emit(DefinitionRegistered(saga=saga.name, version=saga.version, steps=tuple(saga.steps)))
    sagas_by_id = {definition_ids[saga.name, saga.version]: saga for saga in sagas}
    registry = SagaRegistry(sagas_by_id, encryption, time_limit, body_limits(settings))
    registry.suspect_run_ids = suspect_run_ids
    return Registration(token_keys, registry)


class WorkerLoops:
    """
    The loops of one worker, from its first delivery to the end of its shutdown.

    Any number of workers may use the same database and broker.
    """

    def __init__(
        self,
        registration: Registration,
        store: Store,
        publisher: MessagePublisher,
        consumer: MessageConsumer,
        settings: Settings,
        emit: Emitter,
    ) -> None:
        registry = registration.registry
        self._outbox_publisher = outbox_publisher = OutboxPublisher(
            publisher,
            registration.token_keys,
            settings.max_batch_bytes,
            emit,
            limits=registry.limits,
            reply_queues=settings.reply_queues,
        )
        self._token_key_reader = TokenKeyReader(store, outbox_publisher, emit)
        self._encryption = registry.encryption
        self._consumer = consumer
        self._settings = settings
        self._emit = emit
        self._generation = consumer.generation
        self._batch_slots = asyncio.Semaphore(settings.max_concurrent_batches)
        self._active_batches = 0
        self._batch_budget = BatchBudget(
            settings.max_batch_bytes, settings.max_batch_json_values, settings.max_body_bytes
        )
        self._transactions = TransactionRunner(store, registry, outbox_publisher, settings, emit)
        self._batch_runner = BatchRunner(self._transactions, emit)
        self._duties = Duties(store, registry, self._transactions, outbox_publisher, settings, emit)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until *stop* is set, then until every delivery taken so far is acknowledged."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._consume(group))
            for each in self._duties.schedule():
                periodic_loop = run_periodically(
                    each.operation,
                    each.duty,
                    interval=each.interval,
                    stop=stop,
                    on_error=self._emit_error,
                )
                group.create_task(periodic_loop)
            await stop.wait()
            await self._consumer.stop()
        try:
            while await self._duties.outbox.process_unroutable():
                pass
            await self._duties.outbox.delete_confirmed()
        except SagaEngineError as error:
            # Rows that were not deleted are found by another worker's outbox_resend duty.
            self._emit_error(Operation.SHUTDOWN, error)

    async def _consume(self, group: asyncio.TaskGroup) -> None:
        """Process what has arrived in batches, up to `max_concurrent_batches` at once."""
        limit = self._settings.batch_size
        while True:
            await self._batch_slots.acquire()
            deliveries = await self._consumer.take(
                limit, self._batch_budget, only_urgent=self._is_last_batch_slot
            )
            if not deliveries:
                return  # the consumer was stopped, and everything that had arrived is taken
            self._active_batches += 1
            if deliveries[-1].generation != self._generation:
                self._generation = deliveries[-1].generation
                # Replies that came while the worker was not consuming are late.
                self._transactions.admission.connection_lost()
            group.create_task(self._process_deliveries(deliveries))

    def _is_last_batch_slot(self) -> bool:
        """Whether one batch slot is left, which is reserved for replies to runs in flight."""
        return 0 < self._active_batches == self._settings.max_concurrent_batches - 1

    async def _process_deliveries(self, deliveries: Sequence[Delivery]) -> None:
        try:
            _emit_consumed(self._emit, deliveries)
            work_batch = await self._decode(deliveries)
            unprocessed = await self._batch_runner.process(work_batch)
            await self._consumer.acknowledge(each for each in deliveries if each not in unprocessed)
        except Exception as error:  # noqa: BLE001 - a bug must not stop the other batches
            self._emit(
                InternalErrorCaught(operation=Operation.DELIVERIES, problem=describe_error(error))
            )
        finally:
            self._active_batches -= 1
            self._batch_slots.release()
            self._consumer.wake()

    async def _decode(self, deliveries: Sequence[Delivery]) -> WorkBatch:
        """Decode deliveries; again with new token keys if one may be signed with a newer key."""
        token_keys = self._outbox_publisher.token_keys
        work_batch = await decode_deliveries(
            deliveries, token_keys.accepted, self._settings, self._encryption
        )
        if has_unknown_token(work_batch) and await self._token_key_reader.refresh_if_unchanged(
            token_keys
        ):
            token_keys = self._outbox_publisher.token_keys
            work_batch = await decode_deliveries(
                deliveries, token_keys.accepted, self._settings, self._encryption
            )
        return work_batch

    def _emit_error(self, operation: Operation, error: Exception) -> None:
        if isinstance(error, SagaEngineError):
            self._emit(DatabaseUnavailable(operation=operation, problem=str(error)))
        else:
            self._emit(InternalErrorCaught(operation=operation, problem=describe_error(error)))


def _emit_consumed(emit: Emitter, deliveries: Sequence[Delivery]) -> None:
    for queue, count in Counter(delivery.queue for delivery in deliveries).items():
        redelivered = sum(each.redelivered for each in deliveries if each.queue == queue)
        emit(MessagesConsumed(queue=queue, messages=count, redelivered=redelivered))
