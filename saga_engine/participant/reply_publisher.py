"""
Publishing replies in batches, and acknowledging their commands once the broker has confirmed them.

A command is acknowledged only when the broker has confirmed its reply. If this process ends before
that, the broker delivers the command again and the barrier repeats the reply.

A reply that no queue takes (no engine has run on this broker yet) is retried with a growing delay
for `participant_reply_retry_timeout` seconds and does not delay other replies. Then its command is
dead-lettered; immediately if its `reply_to` is not an engine's queue. No step is lost: the engine
sends a command again when there is no reply in time.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace

from saga_engine.amqp.interfaces import MessageConsumer, MessagePublisher
from saga_engine.backoff import Backoff
from saga_engine.protocol.command import new_message_id
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.message import Delivery, Message, PublishOutcome
from saga_engine.protocol.token import redact_token
from saga_engine.protocol.topology import REPLIES
from saga_engine.settings import Settings
from saga_engine.telemetry.events import MessageDeadLettered, MessagesPublished, Observer
from saga_engine.waiting import wait_for_event


def _loop_time() -> float:
    """The clock of the event loop, which all waits here use."""
    return asyncio.get_running_loop().time()


@dataclass(slots=True, kw_only=True)
class _UnconfirmedReply:
    delivery: Delivery
    message: Message
    added_at: float = field(default_factory=_loop_time)
    publish_at: float = 0.0
    attempts: int = 0


class ReplyPublisher:
    """Holds the replies that the broker has not confirmed yet."""

    def __init__(
        self,
        publisher: MessagePublisher,
        consumer: MessageConsumer,
        settings: Settings,
        emit: Observer,
    ) -> None:
        self._publisher = publisher
        self._consumer = consumer
        self._settings = settings
        self._emit = emit
        self._unconfirmed: list[_UnconfirmedReply] = []
        self._wake_up = asyncio.Event()
        self._backoff = Backoff(
            settings.broker_reconnect_backoff, settings.broker_reconnect_backoff_max
        )
        self._stopped_accepting = False

    def add(self, delivery: Delivery, message: Message) -> None:
        """Publish a reply, then acknowledge its command."""
        self._unconfirmed.append(_UnconfirmedReply(delivery=delivery, message=message))
        self._wake_up.set()

    def stop_accepting(self) -> None:
        """Add no further replies: `run` ends when none is left that can be confirmed."""
        self._stopped_accepting = True
        self._wake_up.set()

    async def run(self) -> None:
        """Publish the due replies, up to `max_batch_bytes` in one write, until finished."""
        while self._unconfirmed or not self._stopped_accepting:
            self._wake_up.clear()
            now = _loop_time()
            due = [
                reply
                for reply in self._unconfirmed
                if reply.publish_at <= now or self._stopped_accepting
            ]
            if due:
                await self._publish(self._next_batch(due))
            else:
                next_due = min(
                    (reply.publish_at - now for reply in self._unconfirmed), default=None
                )
                await wait_for_event(self._wake_up, next_due)

    def _next_batch(self, due: list[_UnconfirmedReply]) -> list[_UnconfirmedReply]:
        """The replies to write at once: at least one, and more up to `max_batch_bytes`."""
        size = 0
        for index, reply in enumerate(due):
            size += len(reply.message.body)
            if index and size > self._settings.max_batch_bytes:
                return due[:index]
        return due

    async def _publish(self, batch: list[_UnconfirmedReply]) -> None:
        outcomes = await self._publisher.publish([reply.message for reply in batch])
        self._emit_published(batch, outcomes)
        confirmed: list[_UnconfirmedReply] = []
        undeliverable: list[tuple[_UnconfirmedReply, PublishOutcome]] = []
        to_be_redelivered: list[_UnconfirmedReply] = []
        for reply, outcome in zip(batch, outcomes, strict=True):
            if outcome is PublishOutcome.CONFIRMED:
                confirmed.append(reply)
            elif self._is_undeliverable(reply, outcome):
                undeliverable.append((reply, outcome))
            elif self._will_be_redelivered(reply, outcome):
                to_be_redelivered.append(reply)
            else:
                self._schedule_retry(reply)
        await self._consumer.acknowledge(reply.delivery for reply in confirmed)
        await self._dead_letter(undeliverable)
        removed_ids = {
            id(reply)
            for reply in (*confirmed, *to_be_redelivered, *(reply for reply, _ in undeliverable))
        }
        self._unconfirmed = [reply for reply in self._unconfirmed if id(reply) not in removed_ids]

    def _is_undeliverable(self, reply: _UnconfirmedReply, outcome: PublishOutcome) -> bool:
        expired = _loop_time() - reply.added_at > self._settings.participant_reply_retry_timeout
        # The names of all engines' reply queues start like this, and such a queue may not exist
        # yet. A retry to any other name would only occupy the prefetch.
        unroutable = expired or not reply.message.routing_key.startswith(REPLIES)
        return outcome is PublishOutcome.UNPUBLISHABLE or (
            outcome is PublishOutcome.UNROUTABLE and unroutable
        )

    def _will_be_redelivered(self, reply: _UnconfirmedReply, outcome: PublishOutcome) -> bool:
        """Whether the broker delivers the command again anyway, to this process or another."""
        shutting_down = self._stopped_accepting and outcome is PublishOutcome.UNROUTABLE
        return shutting_down or reply.delivery.generation != self._consumer.generation

    def _schedule_retry(self, reply: _UnconfirmedReply) -> None:
        reply.publish_at = _loop_time() + self._backoff.delay(reply.attempts)
        reply.attempts += 1
        # Two publishes with one message id cannot be distinguished while both are in flight.
        reply.message = replace(reply.message, message_id=new_message_id())

    async def _dead_letter(
        self, undeliverable: list[tuple[_UnconfirmedReply, PublishOutcome]]
    ) -> None:
        for reply, outcome in undeliverable:
            reason, problem = _DEAD_LETTER_REASONS[outcome]
            event = MessageDeadLettered(
                queue=reply.delivery.queue,
                reason=reason,
                problem=problem,
                message_id=reply.delivery.message_id,
                correlation_id=redact_token(reply.delivery.correlation_id),
            )
            self._emit(event)
        await self._consumer.reject(reply.delivery for reply, _ in undeliverable)

    def _emit_published(
        self, batch: list[_UnconfirmedReply], outcomes: list[PublishOutcome]
    ) -> None:
        exchanges = [reply.message.exchange for reply in batch]
        for (exchange, outcome), count in Counter(zip(exchanges, outcomes, strict=True)).items():
            self._emit(MessagesPublished(exchange=exchange, outcome=outcome, messages=count))


_DEAD_LETTER_REASONS = {
    PublishOutcome.UNROUTABLE: (
        DeadLetterReason.REPLY_UNROUTABLE,
        "No queue takes the reply: there is no queue for its reply_to.",
    ),
    PublishOutcome.UNPUBLISHABLE: (
        DeadLetterReason.REPLY_UNPUBLISHABLE,
        "The reply breaks a limit of AMQP or max_body_bytes.",
    ),
}
