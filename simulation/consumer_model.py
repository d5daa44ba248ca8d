"""
A model of a consumer of RabbitMQ behind `MessageConsumer`.

Processes share queues out as the engine decides (`saga_engine.amqp.queue_sharing`). The queue of an
owner without room, or that is stopped, delivers to the standbys.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop
from itertools import count
from typing import Self

from saga_engine.amqp.batch_budget import BatchBudget
from saga_engine.amqp.queue_sharing import SharedQueues, plan_from_counts
from saga_engine.protocol.message import Delivery
from saga_engine.settings import Settings
from saga_engine.vocabulary import Json
from saga_engine.worker import worker_queues
from simulation.broker_model import BrokerModel, QueuedMessage, QueueModel
from simulation.faults import FaultKind, FaultPoint
from simulation.process import SimulatedProcess

TIMER_TOLERANCE_S = 1e-6
"""Seconds; the event loop may call a timer this much too early."""

SHARING_INTERVAL_S = 3.0
"""Seconds between two decisions of a process about the queues that it owns, on average."""

DEFAULT_BUDGET = BatchBudget()


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumedQueues:
    """
    What a consumer consumes.

    Args:
        names: queues that exist.
        prefetch: unacknowledged messages of all queues together.
        urgent: queues whose messages are taken first.
        optional: more queues, which are consumed if they exist at the start.
        shared: the queues that the processes share out.
    """

    names: Sequence[str]
    prefetch: int
    urgent: Collection[str] = ()
    optional: Sequence[str] = ()
    shared: SharedQueues | None = None

    @classmethod
    def of_worker(cls, settings: Settings) -> Self:
        """What a worker consumes."""
        queues = worker_queues.worker_queues(settings)
        return cls(
            names=tuple(queues.required),
            prefetch=settings.reply_prefetch,
            urgent=queues.urgent,
            optional=tuple(queues.earlier),
            shared=queues.shared,
        )


class ConsumerModel:
    """A `MessageConsumer` of one process."""

    def __init__(
        self, broker: BrokerModel, process: SimulatedProcess, queues: ConsumedQueues
    ) -> None:
        self.generation = 1
        self._broker = broker
        self._process = process
        self._prefetch = queues.prefetch
        found = [name for name in queues.optional if name in broker.queues]
        consumed = [broker.queues[name] for name in (*queues.names, *found)]
        self._urgent = [each for each in consumed if each.name in queues.urgent]
        self._queues = [*self._urgent, *(each for each in consumed if each not in self._urgent)]
        self._unacknowledged: dict[int, tuple[QueueModel, QueuedMessage]] = {}
        self._tags = count(1)
        self._wakeup = asyncio.Event()
        self._stopped = False
        for queue in self._queues:
            queue.consumers[self] = None
        process.on_exit(self._close)
        self._shared = queues.shared
        self._closed = False
        if self._shared is not None:
            self._share_later()

    @property
    def has_room(self) -> bool:
        """Whether it takes more messages now."""
        return not self._stopped and len(self._unacknowledged) < self._prefetch

    @property
    def buffered_count(self) -> int:
        """Deliveries that were not taken yet: always 0, because `take` delivers directly."""
        return 0

    def wake(self) -> None:
        """Look for ready messages again."""
        self._wakeup.set()

    async def take(
        self,
        limit: int,
        budget: BatchBudget = DEFAULT_BUDGET,  # noqa: ARG002 - messages are small here
        *,
        only_urgent: Callable[[], bool] = _never,
    ) -> list[Delivery]:
        """Wait for at least one delivery and return the ready ones; none after `stop`."""
        while not self._stopped:
            self._process.raise_if_crashed()
            queues = self._urgent if only_urgent() else self._queues
            if taken := self._take_ready(queues, limit):
                return taken
            self._wakeup.clear()
            await self._wakeup.wait()
        return []

    async def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        """Acknowledge deliveries; those of an earlier generation are ignored."""
        batch = list(deliveries)
        fault = await self._process.pass_point(FaultPoint.ACKNOWLEDGE)
        if fault is not None and fault.kind is FaultKind.DISCONNECT:
            self.disconnect()
        for delivery in batch:
            if self._pop_unacknowledged(delivery):
                for callback in self._broker.on_acknowledged:
                    callback(self._process, delivery)
        self._wakeup.set()  # The prefetch may allow more.
        if fault is not None and fault.kind is FaultKind.CRASH_AFTER:
            self._process.crash(fault)

    async def reject(self, deliveries: Iterable[Delivery]) -> None:
        """Reject deliveries, so that the broker dead-letters them."""
        self._process.raise_if_crashed()
        for delivery in deliveries:
            if popped := self._pop_unacknowledged(delivery):
                self._broker.dead_letter(*popped, "rejected")

    async def stop(self) -> None:
        """Stop consuming; deliveries can still be acknowledged."""
        self._stopped = True
        self._wakeup.set()
        self._wake_standbys()

    def disconnect(self) -> None:
        """Lose the connection: the unacknowledged messages are requeued."""
        self.generation += 1
        for owned in [each for each in self._queues if self in each.owners]:
            del owned.owners[self]
            self._broker.wake_consumers(owned)
        unacknowledged, self._unacknowledged = list(self._unacknowledged.values()), {}
        for queue, queued in unacknowledged:
            queue.unacknowledged -= 1
            self._broker.requeue(queue, queued)

    def _pop_unacknowledged(self, delivery: Delivery) -> tuple[QueueModel, QueuedMessage] | None:
        popped = (
            self._unacknowledged.pop(delivery.delivery_tag, None)
            if delivery.generation == self.generation
            else None
        )
        if popped:
            popped[0].unacknowledged -= 1
        return popped

    def _close(self) -> None:
        self._closed = True
        for queue in self._queues:
            queue.consumers.pop(self, None)
        self.disconnect()

    def _share_later(self) -> None:
        """Share the queues out at the next check of the topology."""
        delay = SHARING_INTERVAL_S * (0.5 + self._broker.rng.random())
        asyncio.get_running_loop().call_later(delay, self._share)

    def _share(self) -> None:
        if self._closed or self._shared is None:
            return
        queues = {name: self._broker.queues[name] for name in self._shared.names}
        counts = {name: len(each.consumers) + len(each.owners) for name, each in queues.items()}
        owned = [name for name, each in queues.items() if self in each.owners]
        process_count = len(self._broker.queues[self._shared.counted_queue].consumers)
        if not self._stopped and not self._process.is_frozen:
            change = plan_from_counts(counts, owned, process_count, self._broker.rng)
            for name in change.released:
                del queues[name].owners[self]
            for name in change.claimed:
                queues[name].owners[self] = None
            for name in (*change.released, *change.claimed):
                self._broker.wake_consumers(queues[name])
        self._share_later()

    def _wake_standbys(self) -> None:
        """Wake the other consumers of the queues that this process owns and takes nothing from."""
        for queue in self._queues:
            if self in queue.owners and not self.has_room:
                self._broker.wake_consumers(queue)

    def _take_ready(self, queues: Sequence[QueueModel], limit: int) -> list[Delivery]:
        now = asyncio.get_running_loop().time() + TIMER_TOLERANCE_S
        capacity = min(limit, self._prefetch - len(self._unacknowledged))
        taken: list[Delivery] = []
        for queue in queues:
            if not queue.delivers_to(self):
                continue
            while len(taken) < capacity and queue.ready and queue.ready[0][0] <= now:
                taken.append(self._deliver(queue, heappop(queue.ready)[2]))
        if taken:
            self._wake_standbys()
        return taken

    def _deliver(self, queue: QueueModel, queued: QueuedMessage) -> Delivery:
        message, tag = queued.message, next(self._tags)
        self._unacknowledged[tag] = (queue, queued)
        queue.unacknowledged += 1
        headers: dict[str, Json] = dict(message.headers)
        if queued.x_death:
            headers["x-death"] = [queued.x_death]
        delivery = Delivery(
            queue=queue.name,
            generation=self.generation,
            delivery_tag=tag,
            body=message.body,
            body_size=len(message.body),
            exchange=message.exchange,
            routing_key=message.routing_key,
            redelivered=queued.redeliveries > 0,
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
        for callback in self._broker.on_delivered:
            callback(self._process, delivery)
        return delivery
