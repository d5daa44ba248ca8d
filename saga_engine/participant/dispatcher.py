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

from saga_engine.amqp.batch_budget import Room
from saga_engine.amqp.consumer import Consumer
from saga_engine.amqp.publisher import Publisher
from saga_engine.participant.barrier import Answer, InHand
from saga_engine.participant.calls import Task
from saga_engine.participant.executor import Performer
from saga_engine.participant.in_progress import LONGEST_PAUSE, Wait, Waiting
from saga_engine.participant.outage import Away
from saga_engine.participant.reply_publisher import Replies
from saga_engine.protocol.command import ReceivedCommand, decode_command
from saga_engine.protocol.message import Delivery
from saga_engine.protocol.reply import encode_reply
from saga_engine.protocol.token import shown
from saga_engine.protocol.unreadable import Unreadable
from saga_engine.settings import Settings
from saga_engine.telemetry.events import (
    FaultFound,
    MessageDeadLettered,
    MessagesConsumed,
    Observer,
    described,
)


class Shift:
    """
    The work of one participant process, from its first command until it has drained.

    `stuck` is set when every place for a handler is taken by one that ignores its cancellation.

    Args:
        performers: by the queue whose commands they perform.
    """

    def __init__(
        self,
        performers: Mapping[str, Performer],
        publisher: Publisher,
        consumer: Consumer,
        settings: Settings,
        tell: Observer,
    ) -> None:
        self._performers = performers
        self._consumer = consumer
        self._settings = settings
        self._tell = tell
        self._room = Room(settings.batch_bytes, settings.batch_values)
        self._draining = asyncio.Event()
        self._slots = asyncio.Semaphore(settings.participant_concurrency)
        self._abandoned = 0
        self.stuck = asyncio.Event()
        self._waiting = Waiting(settings.participant_timeout)
        self._replies = Replies(publisher, consumer, settings, tell)

    async def run(self) -> None:
        """Perform commands until `drain`, then until everything in hand is acknowledged."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._replies.run())
            async with asyncio.TaskGroup() as handling:
                while not self._draining.is_set():
                    limit = self._settings.participant_prefetch
                    for delivery in await self._consumer.take(limit, self._room):
                        handling.create_task(self._handle(delivery))
                    if self._consumer.waiting:
                        # These are decoded when the event loop comes round; before that no more.
                        await asyncio.sleep(0)
            self._replies.finish()

    async def drain(self) -> None:
        """Begin nothing more."""
        self._draining.set()
        await self._consumer.stop()

    async def _handle(self, delivery: Delivery) -> None:
        """Take one command; the prefetch bounds how many are here."""
        try:
            received = decode_command(delivery, self._settings)
            if isinstance(received, Unreadable):
                await self._set_aside(delivery, received.reason, received.sentence)
            else:
                await self._perform(delivery, received)
        except Exception as error:  # noqa: BLE001 - a bug must not stop the other commands
            self._tell(FaultFound(operation="participant", problem=described(error)))
            await self._set_aside(delivery, "fault", "It met a bug of saga-engine.")

    async def _perform(self, delivery: Delivery, received: ReceivedCommand) -> None:
        """Answer a command, as soon as no other delivery has it in hand."""
        performer = self._performers[delivery.queue]
        with self._waiting.of(received.command) as wait:
            while (answer := await self._turn(delivery, received, performer, wait)) is None:
                if not self._wanted(delivery):
                    return
                await self._pause(performer, wait.pause())
        self._replies.add(delivery, encode_reply(received, answer.outcome, answer.body))

    async def _turn(
        self, delivery: Delivery, received: ReceivedCommand, performer: Performer, wait: Wait
    ) -> Answer | None:
        """Give a command a slot once; None when it has to come again, or is not wanted here."""
        await self._slots.acquire()
        left: Task | None = None
        try:
            if not self._wanted(delivery) or performer.is_away:
                return None
            if not wait.counted:
                wait.counted = True
                self._count(delivery)
            answer = await performer.perform(received)
            left = answer.left
        except InHand:
            return performer.give_up(received) if wait.is_over() else None
        except Away:
            return None
        else:
            return answer
        finally:
            self._free(left)

    def _free(self, left: Task | None) -> None:
        """Free a slot, or leave it to a handler that goes on, until that ends."""
        if left is None or left.done():
            self._slots.release()
            return
        self._abandoned += 1
        left.add_done_callback(self._return)
        if self._abandoned >= self._settings.participant_concurrency:
            self.stuck.set()

    def _return(self, _: Task) -> None:
        self._abandoned -= 1
        self._slots.release()

    def _wanted(self, delivery: Delivery) -> bool:
        """Whether what is not begun is still for us, and not for whom the broker gives it next."""
        return not self._draining.is_set() and delivery.epoch == self._consumer.epoch

    async def _pause(self, performer: Performer, seconds: float) -> None:
        if performer.outage is not None and performer.is_away:
            await performer.outage.wait(LONGEST_PAUSE)
            return
        try:
            async with asyncio.timeout(seconds):
                await self._draining.wait()
        except TimeoutError:
            pass  # it is tried again

    def _count(self, delivery: Delivery) -> None:
        again = int(delivery.redelivered)
        self._tell(MessagesConsumed(queue=delivery.queue, messages=1, redelivered=again))

    async def _set_aside(self, delivery: Delivery, reason: str, sentence: str) -> None:
        self._tell(
            MessageDeadLettered(
                queue=delivery.queue,
                reason=reason,
                problem=sentence,
                message_id=delivery.message_id,
                correlation_id=shown(delivery.correlation_id),
            )
        )
        await self._consumer.reject([delivery])
