"""
Replies on their way: published in batches, and only then their commands acknowledged.

Rule: a command is acknowledged when the broker has confirmed its reply. Until then its delivery is
held, so whatever happens to this process the command is delivered again and the barrier repeats its
answer. A reply no queue is bound for (the engine is not there) is tried again with growing pauses,
without holding up the others, for `participant_reply_timeout` seconds; then its command is set
aside, and at once where its `reply_to` is no queue of an engine. Nothing is lost by that: the
engine asks again for whatever it has not heard of.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace

from saga_engine.amqp.consumer import Consumer
from saga_engine.amqp.publisher import Publisher
from saga_engine.protocol.command import fresh_message_id
from saga_engine.protocol.message import Delivery, Message, Published
from saga_engine.protocol.token import shown
from saga_engine.protocol.topology import REPLIES
from saga_engine.settings import Settings
from saga_engine.telemetry.events import MessageDeadLettered, MessagesPublished, Observer


def _now() -> float:
    """The clock of the event loop: what is waited for here goes by no other."""
    return asyncio.get_running_loop().time()


@dataclass(slots=True)
class _Held:
    delivery: Delivery
    message: Message
    since: float = field(default_factory=_now)
    due: float = 0.0
    tries: int = 0


class Replies:
    """What was answered and is not confirmed yet."""

    def __init__(
        self, publisher: Publisher, consumer: Consumer, settings: Settings, tell: Observer
    ) -> None:
        self._publisher = publisher
        self._consumer = consumer
        self._settings = settings
        self._tell = tell
        self._held: list[_Held] = []
        self._changed = asyncio.Event()
        self._finished = False

    def add(self, delivery: Delivery, message: Message) -> None:
        """Publish a reply, then acknowledge the command it answers."""
        self._held.append(_Held(delivery, message))
        self._changed.set()

    def finish(self) -> None:
        """No more will be added: `run` ends when nothing is left that can be confirmed."""
        self._finished = True
        self._changed.set()

    async def run(self) -> None:
        """Publish whatever is due, up to `batch_bytes` in one write, until finished."""
        while self._held or not self._finished:
            self._changed.clear()
            now = _now()
            due = [held for held in self._held if held.due <= now or self._finished]
            if due:
                await self._publish(self._portion(due))
            else:
                await self._wait(min((held.due - now for held in self._held), default=None))

    def _portion(self, due: list[_Held]) -> list[_Held]:
        """As many of them as are written at once: one, and more while they are small enough."""
        size = 0
        for number, held in enumerate(due):
            size += len(held.message.body)
            if number and size > self._settings.batch_bytes:
                return due[:number]
        return due

    async def _wait(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            pass  # the next one is due

    async def _publish(self, due: list[_Held]) -> None:
        outcomes = await self._publisher.publish([held.message for held in due])
        self._count(due, outcomes)
        confirmed: list[_Held] = []
        given_up: list[tuple[_Held, Published]] = []
        dropped: list[_Held] = []
        for held, outcome in zip(due, outcomes, strict=True):
            if outcome is Published.CONFIRMED:
                confirmed.append(held)
            elif self._hopeless(held, outcome):
                given_up.append((held, outcome))
            elif self._elsewhere(held, outcome):
                dropped.append(held)
            else:
                self._again(held)
        await self._consumer.settle(held.delivery for held in confirmed)
        await self._give_up(given_up)
        gone = {id(held) for held in (*confirmed, *dropped, *(held for held, _ in given_up))}
        self._held = [held for held in self._held if id(held) not in gone]

    def _hopeless(self, held: _Held, outcome: Published) -> bool:
        too_long = _now() - held.since > self._settings.participant_reply_timeout
        # Any engine's queue for replies begins like that, and may not be there yet; what leads
        # elsewhere never will be, and would take the place of other commands for all that time.
        nowhere = too_long or not held.message.routing_key.startswith(REPLIES)
        return outcome is Published.REFUSED or (outcome is Published.RETURNED and nowhere)

    def _elsewhere(self, held: _Held, outcome: Published) -> bool:
        """Whether the command is delivered again anyway, to us or to another process."""
        leaving = self._finished and outcome is Published.RETURNED
        return leaving or held.delivery.epoch != self._consumer.epoch

    def _again(self, held: _Held) -> None:
        longest = self._settings.broker_backoff_max
        pause = min(longest, self._settings.broker_backoff * 2.0 ** min(held.tries, 32))
        held.tries += 1
        held.due = _now() + pause
        # Two publishes of one message id cannot be told apart while both are on their way.
        held.message = replace(held.message, message_id=fresh_message_id())

    async def _give_up(self, given_up: list[tuple[_Held, Published]]) -> None:
        for held, outcome in given_up:
            reason, problem = _WHY[outcome]
            fact = MessageDeadLettered(
                queue=held.delivery.queue,
                reason=reason,
                problem=problem,
                message_id=held.delivery.message_id,
                correlation_id=shown(held.delivery.correlation_id),
            )
            self._tell(fact)
        await self._consumer.reject(held.delivery for held, _ in given_up)

    def _count(self, due: list[_Held], outcomes: list[Published]) -> None:
        exchanges = [held.message.exchange for held in due]
        for (exchange, outcome), number in Counter(zip(exchanges, outcomes, strict=True)).items():
            self._tell(MessagesPublished(exchange=exchange, outcome=outcome.value, messages=number))


_WHY = {
    Published.RETURNED: (
        "reply_unroutable",
        "No queue takes the reply: its reply_to leads nowhere.",
    ),
    Published.REFUSED: ("reply_unpublishable", "The reply breaks a limit of AMQP or body_bytes."),
}
