"""
Participants at work: their loops over connections that are there, and how they come to an end.

    deliveries -> performer -> replies (publish, confirm) -> acknowledgement

What cannot be read as a command is set aside by rejecting it, so that the queue's policy
dead-letters it. A command that another delivery has in hand waits without a slot: that one may be
in a process that is gone, and many such commands would leave no slot for the others.

`service` connects and hands the connections over; a simulation hands over its models.
"""

import asyncio
from collections.abc import Mapping

from saga_engine.broker.command import decode_command
from saga_engine.broker.consumer import Consumer
from saga_engine.broker.publisher import Publisher
from saga_engine.broker.reply import encode_reply
from saga_engine.broker.unreadable import Unreadable
from saga_engine.broker.wire import Delivery
from saga_engine.participant.barrier import InHand
from saga_engine.participant.performer import Performer
from saga_engine.participant.replies import Replies
from saga_engine.settings import Settings
from saga_engine.telemetry.facts import (
    FaultFound,
    MessageDeadLettered,
    MessagesConsumed,
    Observer,
    described,
)

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds until a command that another delivery has in hand is tried again: doubling."""


class Shift:
    """
    The work of one participant process, from its first command until it has drained.

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
        self._draining = asyncio.Event()
        self._slots = asyncio.Semaphore(settings.participant_concurrency)
        self._replies = Replies(publisher, consumer, settings, tell)

    async def run(self) -> None:
        """Perform commands until `drain`, then until everything in hand is acknowledged."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._replies.run())
            async with asyncio.TaskGroup() as handling:
                while not self._draining.is_set():
                    for delivery in await self._consumer.take(self._settings.participant_prefetch):
                        handling.create_task(self._handle(delivery))
            self._replies.finish()

    async def drain(self) -> None:
        """Begin nothing more."""
        self._draining.set()
        await self._consumer.stop()

    async def _handle(self, delivery: Delivery) -> None:
        """Take one command; the prefetch bounds how many wait for a slot here."""
        waited, pause = 0.0, FIRST_PAUSE
        while not await self._has_turn(delivery, waited):
            await self._wait(pause)
            waited += pause
            pause = min(LONGEST_PAUSE, pause * 2)

    async def _has_turn(self, delivery: Delivery, waited: float) -> bool:
        """Give a command a slot for once; whether that was enough."""
        async with self._slots:
            if self._draining.is_set():
                return True  # It is not begun: the broker gives it to another process.
            if not waited:
                self._count(delivery)
            try:
                await self._answer(delivery, waited)
            except InHand:
                return False
            except Exception as error:  # noqa: BLE001 - a bug must not stop the other commands
                self._tell(FaultFound(operation="participant", problem=described(error)))
                await self._set_aside(delivery, "fault", "It met a bug of saga-engine.")
            return True

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._draining.wait()
        except TimeoutError:
            pass  # it is tried again

    def _count(self, delivery: Delivery) -> None:
        again = int(delivery.redelivered)
        self._tell(MessagesConsumed(queue=delivery.queue, messages=1, redelivered=again))

    async def _answer(self, delivery: Delivery, waited: float) -> None:
        received = decode_command(delivery, self._settings)
        if isinstance(received, Unreadable):
            await self._set_aside(delivery, received.reason, received.sentence)
            return
        answer = await self._performers[delivery.queue].perform(received, waited=waited)
        self._replies.add(delivery, encode_reply(received, answer.outcome, answer.body))

    async def _set_aside(self, delivery: Delivery, reason: str, sentence: str) -> None:
        self._tell(
            MessageDeadLettered(
                queue=delivery.queue,
                reason=reason,
                problem=sentence,
                message_id=delivery.message_id,
                correlation_id=delivery.correlation_id,
            )
        )
        await self._consumer.reject([delivery])
