"""
The loops of a participant process: from the delivery of a command to its acknowledgement.

    deliveries -> executor -> reply publisher (publish, confirm) -> acknowledgement

A message that cannot be read as a command is rejected, and the queue's policy dead-letters it. A
command whose other delivery is being executed waits without a slot (`in_progress`): the other
delivery may belong to a process that is gone, and many such commands would use all the slots.

`service` opens the connections and passes them in; the simulation passes in models of them.
"""

import asyncio
from collections.abc import Mapping

from saga_engine.amqp.batch_budget import BatchBudget
from saga_engine.amqp.interfaces import MessageConsumer, MessagePublisher
from saga_engine.participant.barrier import CommandInProgress, CommandResult
from saga_engine.participant.command_batches import CommandBatches
from saga_engine.participant.executor import Executor
from saga_engine.participant.handler_calls import Task
from saga_engine.participant.in_progress import MAX_RETRY_DELAY, InProgressCommands, RetryWait
from saga_engine.participant.outage import CommandDeferred
from saga_engine.participant.reply_publisher import ReplyPublisher
from saga_engine.protocol.command import ReceivedCommand, decode_command
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.message import Delivery
from saga_engine.protocol.reply import encode_reply
from saga_engine.protocol.token import redact_token
from saga_engine.protocol.unreadable import UnreadableMessage
from saga_engine.settings import Settings
from saga_engine.telemetry.events import (
    InternalErrorCaught,
    MessageDeadLettered,
    MessagesConsumed,
    Observer,
    describe_error,
)
from saga_engine.telemetry.operations import Operation
from saga_engine.waiting import wait_for_event


class Dispatcher:
    """
    Executes the commands of one process, from its first command until it has shut down.

    `stuck` is set when a handler that ignores its cancellation is running in every slot.

    Args:
        executors: an executor for each queue.
        publisher: publishes the replies.
        consumer: delivers the commands.
        settings: concurrency, prefetch and timeouts.
        emit: receives telemetry.
    """

    def __init__(
        self,
        executors: Mapping[str, Executor],
        publisher: MessagePublisher,
        consumer: MessageConsumer,
        settings: Settings,
        emit: Observer,
    ) -> None:
        self._executors = executors
        self._consumer = consumer
        self._settings = settings
        self._emit = emit
        self._batch_budget = BatchBudget(settings.max_batch_bytes, settings.max_batch_json_values)
        self._stopping = asyncio.Event()
        self._slots = asyncio.Semaphore(settings.participant_concurrency)
        self._abandoned_count = 0
        self.stuck = asyncio.Event()
        self._in_progress = InProgressCommands(settings.participant_handler_timeout)
        self._reply_publisher = ReplyPublisher(publisher, consumer, settings, emit)
        self._batches = {
            queue: CommandBatches(executor.batch_executor, self._slots, settings)
            for queue, executor in executors.items()
            if executor.batch_executor is not None
        }

    async def run(self) -> None:
        """Execute commands until `stop`, then finish and acknowledge those in progress."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._reply_publisher.run())
            async with asyncio.TaskGroup() as handler_tasks:
                for batches in self._batches.values():
                    batches.start(handler_tasks, self._release_slot)
                while not self._stopping.is_set():
                    limit = self._settings.participant_prefetch
                    for delivery in await self._consumer.take(limit, self._batch_budget):
                        handler_tasks.create_task(self._handle(delivery))
                    if self._consumer.buffered_count:
                        # Let the event loop decode these before more are taken.
                        await asyncio.sleep(0)
            self._reply_publisher.stop_accepting()

    async def stop(self) -> None:
        """Start no further command."""
        self._stopping.set()
        await self._consumer.stop()

    async def _handle(self, delivery: Delivery) -> None:
        """Process one delivery; the prefetch limits how many are processed at once."""
        try:
            received = decode_command(delivery, self._settings)
            if isinstance(received, UnreadableMessage):
                await self._dead_letter(delivery, received.reason, received.explanation)
            else:
                await self._execute(delivery, received)
        except Exception as error:  # noqa: BLE001 - a bug must not stop the other commands
            self._emit(
                InternalErrorCaught(operation=Operation.PARTICIPANT, problem=describe_error(error))
            )
            await self._dead_letter(
                delivery,
                DeadLetterReason.INTERNAL_ERROR,
                "Processing it failed with a bug in saga-engine.",
            )

    async def _execute(self, delivery: Delivery, received: ReceivedCommand) -> None:
        """Execute a command, as soon as no other delivery of it is being executed."""
        executor = self._executors[delivery.queue]
        with self._in_progress.track(received.command) as retry_wait:
            result = await self._execute_in_batch(delivery, received, executor, retry_wait)
            while result is None:
                result = await self._try_execute(delivery, received, executor, retry_wait)
                if result is None:
                    if not self._is_still_ours(delivery):
                        return
                    await self._wait_before_retry(executor, retry_wait.next_delay())
        self._reply_publisher.add(delivery, encode_reply(received, result.outcome, result.body))

    async def _execute_in_batch(
        self,
        delivery: Delivery,
        received: ReceivedCommand,
        executor: Executor,
        retry_wait: RetryWait,
    ) -> CommandResult | None:
        """Execute a command together with others; None if it must be executed alone."""
        batches = self._batches.get(delivery.queue)
        if batches is None:
            return None

        def can_start() -> bool:
            return self._is_still_ours(delivery) and not executor.is_database_unavailable

        result = await batches.execute(received, can_start)
        if result is not None:
            retry_wait.consumption_emitted = True
            self._emit_consumed(delivery)
        return result

    async def _try_execute(
        self,
        delivery: Delivery,
        received: ReceivedCommand,
        executor: Executor,
        retry_wait: RetryWait,
    ) -> CommandResult | None:
        """Execute a command once there is a slot; None if it must be retried or given up here."""
        await self._slots.acquire()
        abandoned_task: Task | None = None
        try:
            if not self._is_still_ours(delivery) or executor.is_database_unavailable:
                return None
            if not retry_wait.consumption_emitted:
                retry_wait.consumption_emitted = True
                self._emit_consumed(delivery)
            result = await executor.execute(received)
            abandoned_task = result.abandoned_task
        except CommandInProgress:
            return executor.give_up_waiting(received) if retry_wait.should_give_up() else None
        except CommandDeferred:
            return None
        else:
            return result
        finally:
            self._release_slot(abandoned_task)

    def _release_slot(self, abandoned_task: Task | None) -> None:
        """Free a slot. If the handler still runs, the slot is freed when it ends."""
        if abandoned_task is None or abandoned_task.done():
            self._slots.release()
            return
        self._abandoned_count += 1
        abandoned_task.add_done_callback(self._on_abandoned_task_done)
        if self._abandoned_count >= self._settings.participant_concurrency:
            self.stuck.set()

    def _on_abandoned_task_done(self, _: Task) -> None:
        self._abandoned_count -= 1
        self._slots.release()

    def _is_still_ours(self, delivery: Delivery) -> bool:
        """Whether a command that has not started must still be executed for this delivery."""
        return not self._stopping.is_set() and delivery.generation == self._consumer.generation

    async def _wait_before_retry(self, executor: Executor, seconds: float) -> None:
        if executor.outage_monitor is not None and executor.is_database_unavailable:
            await executor.outage_monitor.wait_until_over(MAX_RETRY_DELAY)
            return
        await wait_for_event(self._stopping, seconds)

    def _emit_consumed(self, delivery: Delivery) -> None:
        redelivered = int(delivery.redelivered)
        self._emit(MessagesConsumed(queue=delivery.queue, messages=1, redelivered=redelivered))

    async def _dead_letter(
        self, delivery: Delivery, reason: DeadLetterReason, sentence: str
    ) -> None:
        self._emit(
            MessageDeadLettered(
                queue=delivery.queue,
                reason=reason,
                problem=sentence,
                message_id=delivery.message_id,
                correlation_id=redact_token(delivery.correlation_id),
            )
        )
        await self._consumer.reject([delivery])
