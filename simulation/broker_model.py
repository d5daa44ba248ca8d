"""
A model of RabbitMQ at the height of Publisher and Consumer: quorum queues, confirms, returns.

Messages take time and may overtake one another. What was delivered and not settled goes back to its
queue when its consumer's connection ends, and from there to the dead letters when that has happened
too often. The broker's contract tests run over this model and over the real thing.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from random import Random

from saga_engine.amqp.batch_budget import Room
from saga_engine.protocol.message import Delivery, Message, Published
from saga_engine.protocol.topology import DEAD_LETTERS, ExchangeKind, Topology
from saga_engine.vocabulary import Json
from simulation.faults import Fault, Kind, Point
from simulation.process import Process

DELIVERY_LIMIT = 20
"""How often a message goes back to its queue; as in `topology.policy`."""

TRANSIT = 0.02
"""Seconds a message takes at the most, unless it is delayed."""

TICK = 1e-6
"""Seconds; the event loop may call a timer that much early."""

OUTCOMES = {
    Kind.NACKED: Published.NACKED,
    Kind.LOST: Published.UNKNOWN,
    Kind.VANISHED: Published.CONFIRMED,
}
"""What the publisher hears of a message that does not arrive."""


@dataclass(slots=True)
class Parcel:
    """A message in a queue; `returns` is how often it came back."""

    message: Message
    returns: int = 0
    death: Mapping[str, str] | None = None


class Queue:
    """A quorum queue."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.waiting: list[tuple[float, int, Parcel]] = []
        self.held = 0
        self.consumers: dict[Consumer, None] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits here and nothing that was here is unsettled."""
        return not self.waiting and not self.held


class Broker:
    """
    One broker; its witnesses are told of each message that is published, delivered, acknowledged.

    Args:
        dice: decides how long messages take and who gets them.
    """

    def __init__(self, dice: Random) -> None:
        self.dice = dice
        self.queues: dict[str, Queue] = {}
        self.published: list[Callable[[Process, Message, Published], None]] = []
        self.delivered: list[Callable[[Process, Delivery], None]] = []
        self.acknowledged: list[Callable[[Process, Delivery], None]] = []
        self._kinds: dict[str, ExchangeKind] = {}
        self._bound: defaultdict[str, defaultdict[str, list[Queue]]] = defaultdict(
            lambda: defaultdict(list)
        )
        self._numbers = count()

    def declare(self, topology: Topology) -> None:
        """Make what is not there yet."""
        for exchange in topology.exchanges:
            self._kinds[exchange.name] = exchange.kind
        for queue in topology.queues:
            self.queues.setdefault(queue.name, Queue(queue.name))
        for binding in topology.bindings:
            queues = self._bound[binding.exchange][binding.key]
            if self.queues[binding.queue] not in queues:
                queues.append(self.queues[binding.queue])

    def route(self, message: Message) -> list[Queue]:
        """Choose the queues of a message; the only pattern known is the one that fits all."""
        bound = self._bound[message.exchange]
        if self._kinds.get(message.exchange) is ExchangeKind.FANOUT:
            return [queue for queues in bound.values() for queue in queues]
        return [*bound.get(message.routing_key, ()), *bound.get("#", ())]

    def arrive(self, queue: Queue, parcel: Parcel, *, delay: float = 0.0) -> None:
        """Put a message into a queue; it can be taken when it has been under way."""
        loop = asyncio.get_running_loop()
        ready_at = loop.time() + delay + self.dice.random() * TRANSIT
        heappush(queue.waiting, (ready_at, next(self._numbers), parcel))
        loop.call_at(ready_at, self._call, queue)

    def give_back(self, queue: Queue, parcel: Parcel) -> None:
        """Take back what was delivered and not settled."""
        parcel.returns += 1
        if parcel.returns > DELIVERY_LIMIT:
            self.bury(queue, parcel, "delivery_limit")
        else:
            self.arrive(queue, parcel)

    def bury(self, queue: Queue, parcel: Parcel, reason: str) -> None:
        """Dead-letter a message; those of the last queue are gone."""
        if queue.name != DEAD_LETTERS:
            death = {"queue": queue.name, "reason": reason}
            self.arrive(self.queues[DEAD_LETTERS], Parcel(parcel.message, death=death))

    def _call(self, queue: Queue) -> None:
        """Wake whoever consumes, in any order."""
        consumers = list(queue.consumers)
        self.dice.shuffle(consumers)
        for consumer in consumers:
            consumer.wake()


class Publisher:
    """What a process publishes with; it has the methods of `broker.publisher.Publisher`."""

    def __init__(self, broker: Broker, process: Process, confirm_timeout: float) -> None:
        self._broker = broker
        self._process = process
        self._confirm_timeout = confirm_timeout
        self._blocked_until = 0.0

    @property
    def blocked(self) -> bool:
        """Whether the broker takes no publishes just now."""
        return self._blocked_until > asyncio.get_running_loop().time()

    async def publish(self, messages: Sequence[Message]) -> list[Published]:
        """Publish a batch; one outcome for each message, in their order."""
        fault = await self._process.reach(Point.PUBLISH)
        loop = asyncio.get_running_loop()
        if fault is not None:
            self._blocked_until = loop.time() + fault.seconds
        if self.blocked:
            left = self._blocked_until - loop.time()
            await asyncio.sleep(min(left, self._confirm_timeout))
            if self.blocked:
                return [Published.UNKNOWN] * len(messages)
        outcomes = [self._publish(message) for message in messages]
        if await self._process.reach(Point.CONFIRM):
            return [Published.UNKNOWN] * len(messages)
        return outcomes

    def _publish(self, message: Message) -> Published:
        fault = self._process.strike(Point.MESSAGE)
        outcome = self._arrives(message, fault)
        for told in self._broker.published:
            told(self._process, message, outcome)
        return outcome

    def _arrives(self, message: Message, fault: Fault | None) -> Published:
        queues = self._broker.route(message)
        if fault is not None and fault.kind is Kind.RETURNED:
            queues = []
        if not queues and message.mandatory:
            return Published.RETURNED
        if fault is not None and fault.kind in OUTCOMES:
            return OUTCOMES[fault.kind]
        for queue in queues:
            self._send(queue, message, fault)
        return Published.CONFIRMED

    def _send(self, queue: Queue, message: Message, fault: Fault | None) -> None:
        delayed = fault is not None and fault.kind is Kind.DELAYED
        self._broker.arrive(queue, Parcel(message), delay=fault.seconds if fault and delayed else 0)
        if fault is not None and fault.kind is Kind.DOUBLED:
            self._broker.arrive(queue, Parcel(message), delay=fault.seconds)


ROOMY = Room()


def _never() -> bool:
    return False


class Consumer:
    """
    What a process consumes with; it has the methods of `broker.consumer.Consumer`.

    Of its queues the first is urgent.
    """

    def __init__(
        self, broker: Broker, process: Process, queues: Sequence[str], prefetch: int
    ) -> None:
        self.epoch = 1
        self._broker = broker
        self._process = process
        self._prefetch = prefetch
        self._queues = [broker.queues[name] for name in queues]
        self._held: dict[int, tuple[Queue, Parcel]] = {}
        self._tags = count(1)
        self._arrived = asyncio.Event()
        self._stopped = False
        for queue in self._queues:
            queue.consumers[self] = None
        process.at_end(self._leave)

    @property
    def waiting(self) -> int:
        """Deliveries that arrived and were not taken yet: none, one arrives when it is taken."""
        return 0

    def wake(self) -> None:
        """Something may have become ready."""
        self._arrived.set()

    async def take(
        self,
        limit: int,
        room: Room = ROOMY,  # noqa: ARG002 - messages are small here
        *,
        only_urgent: Callable[[], bool] = _never,
    ) -> list[Delivery]:
        """Wait for at least one delivery and return what has arrived; nothing after `stop`."""
        while not self._stopped:
            self._process.check()
            queues = self._queues[:1] if only_urgent() else self._queues
            if taken := self._take(queues, limit):
                return taken
            self._arrived.clear()
            await self._arrived.wait()
        return []

    async def settle(self, deliveries: Iterable[Delivery]) -> None:
        """Acknowledge deliveries; those of an epoch that is over are dropped."""
        mine = list(deliveries)
        fault = await self._process.reach(Point.SETTLE)
        if fault is not None and fault.kind is Kind.CUT:
            self.cut()
        for delivery in mine:
            if self._release(delivery):
                for told in self._broker.acknowledged:
                    told(self._process, delivery)
        self._arrived.set()  # there may be room again
        if fault is not None and fault.kind is Kind.CRASH_AFTER:
            self._process.die(fault)

    async def reject(self, deliveries: Iterable[Delivery]) -> None:
        """Set deliveries aside for good."""
        self._process.check()
        for delivery in deliveries:
            if held := self._release(delivery):
                self._broker.bury(*held, "rejected")

    async def stop(self) -> None:
        """Consume no more; what was taken can still be settled."""
        self._stopped = True
        self._arrived.set()

    def cut(self) -> None:
        """Lose the connection: everything that is held is delivered again, to whoever consumes."""
        self.epoch += 1
        held, self._held = list(self._held.values()), {}
        for queue, parcel in held:
            queue.held -= 1
            self._broker.give_back(queue, parcel)

    def _release(self, delivery: Delivery) -> tuple[Queue, Parcel] | None:
        held = self._held.pop(delivery.tag, None) if delivery.epoch == self.epoch else None
        if held:
            held[0].held -= 1
        return held

    def _leave(self) -> None:
        for queue in self._queues:
            queue.consumers.pop(self, None)
        self.cut()

    def _take(self, queues: Sequence[Queue], limit: int) -> list[Delivery]:
        now = asyncio.get_running_loop().time() + TICK
        room = min(limit, self._prefetch - len(self._held))
        taken: list[Delivery] = []
        for queue in queues:
            while len(taken) < room and queue.waiting and queue.waiting[0][0] <= now:
                taken.append(self._deliver(queue, heappop(queue.waiting)[2]))
        return taken

    def _deliver(self, queue: Queue, parcel: Parcel) -> Delivery:
        message, tag = parcel.message, next(self._tags)
        self._held[tag] = (queue, parcel)
        queue.held += 1
        headers: dict[str, Json] = dict(message.headers)
        if parcel.death:
            headers["x-death"] = [parcel.death]
        delivery = Delivery(
            queue=queue.name,
            epoch=self.epoch,
            tag=tag,
            body=message.body,
            size=len(message.body),
            exchange=message.exchange,
            routing_key=message.routing_key,
            redelivered=parcel.returns > 0,
            message_id=message.message_id,
            correlation_id=message.correlation_id,
            reply_to=message.reply_to,
            type=message.type,
            content_type="application/json",
            content_encoding="",
            user_id="",
            app_id="saga-engine",
            timestamp=message.timestamp,
            headers=headers,
        )
        for told in self._broker.delivered:
            told(self._process, delivery)
        return delivery
