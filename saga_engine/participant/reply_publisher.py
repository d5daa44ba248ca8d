"""
Replies on their way: published in batches, and only then their commands acknowledged.

Rule: a command is acknowledged when the broker has confirmed its reply. Until then its delivery is
held, so whatever happens to this process the command is delivered again and the barrier repeats its
answer. A reply no queue is bound for (the engine is not there) is tried again with growing pauses,
without holding up the others, for `participant_reply_retry_timeout` seconds; then its command is
set aside, and at once where its `reply_to` is no queue of an engine. Nothing is lost by that: the
engine asks again for whatever it has not heard of.
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
    """The clock of the event loop: what is waited for here goes by no other."""
    return asyncio.get_running_loop().time()


@dataclass(slots=True)
class _UnconfirmedReply:
    delivery: Delivery
    message: Message
    added_at: float = field(default_factory=_loop_time)
    publish_at: float = 0.0
    attempts: int = 0


class ReplyPublisher:
    """What was answered and is not confirmed yet."""

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
        """Publish a reply, then acknowledge the command it answers."""
        self._unconfirmed.append(_UnconfirmedReply(delivery, message))
        self._wake_up.set()

    def stop_accepting(self) -> None:
        """No more will be added: `run` ends when nothing is left that can be confirmed."""
        self._stopped_accepting = True
        self._wake_up.set()

    async def run(self) -> None:
        """Publish whatever is due, up to `max_batch_bytes` in one write, until finished."""
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
        """As many of them as are written at once: one, and more while they are small enough."""
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
        # Any engine's queue for replies begins like that, and may not be there yet; what leads
        # elsewhere never will be, and would take the place of other commands for all that time.
        unroutable = expired or not reply.message.routing_key.startswith(REPLIES)
        return outcome is PublishOutcome.UNPUBLISHABLE or (
            outcome is PublishOutcome.UNROUTABLE and unroutable
        )

    def _will_be_redelivered(self, reply: _UnconfirmedReply, outcome: PublishOutcome) -> bool:
        """Whether the command is delivered again anyway, to us or to another process."""
        shutting_down = self._stopped_accepting and outcome is PublishOutcome.UNROUTABLE
        return shutting_down or reply.delivery.generation != self._consumer.generation

    def _schedule_retry(self, reply: _UnconfirmedReply) -> None:
        reply.publish_at = _loop_time() + self._backoff.delay(reply.attempts)
        reply.attempts += 1
        # Two publishes of one message id cannot be told apart while both are on their way.
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
        "No queue takes the reply: its reply_to leads nowhere.",
    ),
    PublishOutcome.UNPUBLISHABLE: (
        DeadLetterReason.REPLY_UNPUBLISHABLE,
        "The reply breaks a limit of AMQP or max_body_bytes.",
    ),
}
