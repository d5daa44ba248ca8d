"""
Participants at work: their loops over connections that are there, and how they come to an end.

    deliveries -> performer -> replies (publish, confirm) -> acknowledgement

What cannot be read as a command is set aside by rejecting it, so that the queue's policy
dead-letters it. A command that another delivery has in hand waits without a slot (`waiting`): that
one may be in a process that is gone, and many such commands would leave no slot for the others.

`service` connects and hands the connections over; a simulation hands over its models.
"""

import asyncio
from collections.abc import Mapping

from saga_engine.amqp.batch_budget import BatchBudget
from saga_engine.amqp.interfaces import MessageConsumer, MessagePublisher
from saga_engine.participant.barrier import CommandInProgress, CommandResult
from saga_engine.participant.calls import Task
from saga_engine.participant.executor import Executor
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
    The work of one participant process, from its first command until it has drained.

    `stuck` is set when every place for a handler is taken by one that ignores its cancellation.

    Args:
        performers: by the queue whose commands they perform.
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
        self._draining = asyncio.Event()
        self._slots = asyncio.Semaphore(settings.participant_concurrency)
        self._abandoned_count = 0
        self.stuck = asyncio.Event()
        self._in_progress = InProgressCommands(settings.participant_handler_timeout)
        self._reply_publisher = ReplyPublisher(publisher, consumer, settings, emit)

    async def run(self) -> None:
        """Perform commands until `drain`, then finish and acknowledge those in progress."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._reply_publisher.run())
            async with asyncio.TaskGroup() as handler_tasks:
                while not self._draining.is_set():
                    limit = self._settings.participant_prefetch
                    for delivery in await self._consumer.take(limit, self._batch_budget):
                        handler_tasks.create_task(self._handle(delivery))
                    if self._consumer.buffered_count:
                        # These are decoded when the event loop comes round; before that no more.
                        await asyncio.sleep(0)
            self._reply_publisher.stop_accepting()

    async def drain(self) -> None:
        """Begin nothing more."""
        self._draining.set()
        await self._consumer.stop()

    async def _handle(self, delivery: Delivery) -> None:
        """Take one command; the prefetch bounds how many are here."""
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
                delivery, DeadLetterReason.INTERNAL_ERROR, "It met a bug of saga-engine."
            )

    async def _execute(self, delivery: Delivery, received: ReceivedCommand) -> None:
        """Answer a command, as soon as no other delivery has it in hand."""
        executor = self._executors[delivery.queue]
        with self._in_progress.track(received.command) as retry_wait:
            while (
                result := await self._try_execute(delivery, received, executor, retry_wait)
            ) is None:
                if not self._is_still_ours(delivery):
                    return
                await self._wait_before_retry(executor, retry_wait.next_delay())
        self._reply_publisher.add(delivery, encode_reply(received, result.outcome, result.body))

    async def _try_execute(
        self,
        delivery: Delivery,
        received: ReceivedCommand,
        executor: Executor,
        retry_wait: RetryWait,
    ) -> CommandResult | None:
        """Give a command a slot once; None when it has to come again, or is not wanted here."""
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
        """Free a slot, or leave it to a handler that goes on, until that ends."""
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
        """Whether what is not begun is still for us, and not for whom the broker gives it next."""
        return not self._draining.is_set() and delivery.generation == self._consumer.generation

    async def _wait_before_retry(self, executor: Executor, seconds: float) -> None:
        if executor.outage_monitor is not None and executor.is_database_unavailable:
            await executor.outage_monitor.wait_until_over(MAX_RETRY_DELAY)
            return
        await wait_for_event(self._draining, seconds)

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
