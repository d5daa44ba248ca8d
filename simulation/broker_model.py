"""
A model of RabbitMQ behind `MessagePublisher`: quorum queues, consumer priorities and confirms.

Messages take time and may overtake one another. Unacknowledged messages are requeued when the
connection of their consumer ends, and dead-lettered after too many redeliveries. `consumer_model`
has the consumers. The contract tests in tests/simulation/test_broker_model.py run on this model and
on RabbitMQ.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappush
from itertools import count
from random import Random
from typing import Protocol

from saga_engine.protocol.message import Delivery, Message, PublishOutcome
from saga_engine.protocol.topology import DEAD_LETTERS, ExchangeKind, Topology
from simulation.faults import Fault, FaultKind, FaultPoint
from simulation.process import SimulatedProcess

DELIVERY_LIMIT = 20
"""Redeliveries of a message before it is dead-lettered, as in `topology.queue_policy`."""

MAX_TRANSIT_S = 0.02
"""The longest transit of a message in seconds, unless it is delayed."""

OUTCOMES_BY_FAULT = {
    FaultKind.NACKED: PublishOutcome.NACKED,
    FaultKind.LOST_BEFORE_CONFIRM: PublishOutcome.UNKNOWN,
    FaultKind.LOST_AFTER_CONFIRM: PublishOutcome.CONFIRMED,
}
"""The outcome for the publisher of a message that is not delivered."""


@dataclass(slots=True)
class QueuedMessage:
    """A message in a queue."""

    message: Message
    redeliveries: int = 0
    x_death: Mapping[str, str] | None = None


class QueueConsumer(Protocol):
    """What a queue uses of a consumer."""

    @property
    def has_room(self) -> bool:
        """Whether it takes more messages now."""

    def wake(self) -> None:
        """Look for ready messages again."""


class QueueModel:
    """A quorum queue; its `owners` are consumers with a higher priority (see `queue_sharing`)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ready: list[tuple[float, int, QueuedMessage]] = []
        self.unacknowledged = 0
        self.consumers: dict[QueueConsumer, None] = {}
        self.owners: dict[QueueConsumer, None] = {}

    @property
    def is_empty(self) -> bool:
        """Whether no message is ready or unacknowledged."""
        return not self.ready and not self.unacknowledged

    def delivers_to(self, consumer: QueueConsumer) -> bool:
        """Whether a consumer gets messages: a standby gets them while no owner has room."""
        return consumer in self.owners or not any(owner.has_room for owner in self.owners)


class BrokerModel:
    """
    One broker; callbacks observe each message that is published, delivered or acknowledged.

    Args:
        rng: decides how long messages take and which consumer receives them.
    """

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.queues: dict[str, QueueModel] = {}
        self.on_published: list[Callable[[SimulatedProcess, Message, PublishOutcome], None]] = []
        self.on_delivered: list[Callable[[SimulatedProcess, Delivery], None]] = []
        self.on_acknowledged: list[Callable[[SimulatedProcess, Delivery], None]] = []
        self._exchange_kinds: dict[str, ExchangeKind] = {}
        self._bindings: defaultdict[str, defaultdict[str, list[QueueModel]]] = defaultdict(
            lambda: defaultdict(list)
        )
        self._sequence = count()

    def declare(self, topology: Topology) -> None:
        """Declare a topology; what exists is kept."""
        for exchange in topology.exchanges:
            self._exchange_kinds[exchange.name] = exchange.kind
        for queue in topology.queues:
            self.queues.setdefault(queue.name, QueueModel(queue.name))
        for binding in topology.bindings:
            queues = self._bindings[binding.exchange][binding.binding_key]
            if self.queues[binding.queue] not in queues:
                queues.append(self.queues[binding.queue])

    def route(self, message: Message) -> list[QueueModel]:
        """The queues that a message is routed to; the only pattern is `#`."""
        bindings = self._bindings[message.exchange]
        if self._exchange_kinds.get(message.exchange) is ExchangeKind.FANOUT:
            return [queue for queues in bindings.values() for queue in queues]
        keys = (message.routing_key, *message.other_routing_keys, "#")
        return list(dict.fromkeys(queue for key in keys for queue in bindings.get(key, ())))

    def enqueue(self, queue: QueueModel, queued: QueuedMessage, *, delay: float = 0.0) -> None:
        """Add a message to a queue; it becomes ready after its transit."""
        loop = asyncio.get_running_loop()
        ready_at = loop.time() + delay + self.rng.random() * MAX_TRANSIT_S
        heappush(queue.ready, (ready_at, next(self._sequence), queued))
        loop.call_at(ready_at, self.wake_consumers, queue)

    def requeue(self, queue: QueueModel, queued: QueuedMessage) -> None:
        """Requeue a message that was delivered and not acknowledged."""
        queued.redeliveries += 1
        if queued.redeliveries > DELIVERY_LIMIT:
            self.dead_letter(queue, queued, "delivery_limit")
        else:
            self.enqueue(queue, queued)

    def dead_letter(self, queue: QueueModel, queued: QueuedMessage, reason: str) -> None:
        """Dead-letter a message; a message of the dead-letter queue is dropped."""
        if queue.name != DEAD_LETTERS:
            death = {"queue": queue.name, "reason": reason}
            self.enqueue(self.queues[DEAD_LETTERS], QueuedMessage(queued.message, x_death=death))

    def wake_consumers(self, queue: QueueModel) -> None:
        """Wake the consumers of a queue in random order."""
        consumers = list(queue.consumers)
        self.rng.shuffle(consumers)
        for consumer in consumers:
            consumer.wake()


class PublisherModel:
    """A `MessagePublisher` of one process."""

    def __init__(
        self, broker: BrokerModel, process: SimulatedProcess, confirm_timeout: float
    ) -> None:
        self._broker = broker
        self._process = process
        self._confirm_timeout = confirm_timeout
        self._blocked_until = 0.0

    @property
    def blocked(self) -> bool:
        """Whether the broker currently blocks this publisher."""
        return self._blocked_until > asyncio.get_running_loop().time()

    def unpublishable_reason(self, message: Message) -> str:
        """Why the broker could never take a message: messages are small here."""
        del message
        return ""

    async def publish(self, messages: Sequence[Message]) -> list[PublishOutcome]:
        """Publish a batch; return the outcome of each message, in order."""
        fault = await self._process.pass_point(FaultPoint.PUBLISH)
        loop = asyncio.get_running_loop()
        if fault is not None:
            self._blocked_until = loop.time() + fault.seconds
        if self.blocked:
            remaining = self._blocked_until - loop.time()
            await asyncio.sleep(min(remaining, self._confirm_timeout))
            if self.blocked:
                return [PublishOutcome.UNKNOWN] * len(messages)
        outcomes = [self._publish(message) for message in messages]
        if await self._process.pass_point(FaultPoint.CONFIRM):
            return [PublishOutcome.UNKNOWN] * len(messages)
        return outcomes

    def _publish(self, message: Message) -> PublishOutcome:
        fault = self._process.pass_point_now(FaultPoint.MESSAGE)
        outcome = self._route_message(message, fault)
        for callback in self._broker.on_published:
            callback(self._process, message, outcome)
        return outcome

    def _route_message(self, message: Message, fault: Fault | None) -> PublishOutcome:
        queues = self._broker.route(message)
        if fault is not None and fault.kind is FaultKind.UNROUTABLE:
            queues = []
        if not queues and message.mandatory:
            return PublishOutcome.UNROUTABLE
        if fault is not None and fault.kind in OUTCOMES_BY_FAULT:
            return OUTCOMES_BY_FAULT[fault.kind]
        for queue in queues:
            self._enqueue(queue, message, fault)
        return PublishOutcome.CONFIRMED

    def _enqueue(self, queue: QueueModel, message: Message, fault: Fault | None) -> None:
        delayed = fault is not None and fault.kind is FaultKind.DELAYED
        self._broker.enqueue(
            queue, QueuedMessage(message), delay=fault.seconds if fault and delayed else 0
        )
        if fault is not None and fault.kind is FaultKind.DUPLICATED:
            self._broker.enqueue(queue, QueuedMessage(message), delay=fault.seconds)
