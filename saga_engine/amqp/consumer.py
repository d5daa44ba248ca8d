"""
Consuming: deliveries are taken in batches and acknowledged in batches.

Rule: `take` hands out what has arrived and never waits for a batch to fill; the prefetch bounds
what is held, and a Room what is handed out at once. Whatever ends the consuming (a deleted queue, a
closed channel, a lost connection, a broker that forgot us) leads to the same: declare again,
consume again, under the next epoch. Deliveries of an epoch that is over are not acknowledged: the
broker delivers them again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from saga_engine.amqp import driver
from saga_engine.amqp.batch_budget import Arrived, Room
from saga_engine.amqp.connection import CLOSING, Link, Phase
from saga_engine.amqp.consumer_watchdog import Watchdog
from saga_engine.amqp.delivery_channel import DeliveryChannel
from saga_engine.amqp.driver import Connection
from saga_engine.errors import BrokerError, BrokerUnavailable
from saga_engine.protocol.message import Delivery
from saga_engine.protocol.topology import Binding


def _never() -> bool:
    return False


ROOMY = Room()
"""For as much as there is."""


class Consumer:
    """
    Consumes `queues` over one link; `async with` owns it.

    Args:
        queues: each with `prefetch` unacknowledged deliveries at the most.
        prefetch: the setting of that name when left out; or by queue.
        urgent: those of the queues whose deliveries are taken before the others'.
    """

    def __init__(
        self,
        link: Link,
        queues: Sequence[str],
        *,
        prefetch: int | Mapping[str, int] | None = None,
        urgent: Collection[str] = (),
    ) -> None:
        self._link = link
        self._queues = tuple(queues)
        self._prefetch = _by_queue(queues, prefetch or link.settings.prefetch)
        self._bindings: dict[Binding, None] = {}
        self._epoch = 0
        self._connection: Connection | None = None
        self._channel: DeliveryChannel | None = None
        self._buffer = Arrived(urgent)
        self._arrived = asyncio.Event()
        self._broken = asyncio.Event()
        self._stopped = False
        self._tasks = asyncio.TaskGroup()
        self._supervisor: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        await self._subscribe()
        await self._tasks.__aenter__()
        self._supervisor = self._tasks.create_task(self._supervise())
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._stopped = True
        self._arrived.set()
        self._supervisor.cancel()
        # The task group is not told of the error: it would leave wrapped in an exception group.
        await self._tasks.__aexit__(None, None, None)
        channel, self._channel = self._channel, None
        if channel:
            await driver.close(channel, CLOSING)

    @property
    def epoch(self) -> int:
        """How often consuming has begun."""
        return self._epoch

    @property
    def waiting(self) -> int:
        """Deliveries that arrived and were not taken yet."""
        return len(self._buffer)

    async def take(
        self, limit: int, room: Room = ROOMY, *, only_urgent: Callable[[], bool] = _never
    ) -> list[Delivery]:
        """
        Wait for at least one delivery and return what has arrived, `limit` at the most.

        Args:
            room: for how many bytes and values of bodies; one delivery always has room.
            only_urgent: whether the others are left where they are; asked whenever something
                arrives, and at `wake`.

        Returns:
            Nothing only after `stop`, when what had arrived before is taken.
        """
        while True:
            taken = self._buffer.take(limit, room, only_urgent=only_urgent())
            if taken or (self._stopped and not self._buffer):
                return taken
            self._arrived.clear()
            await self._arrived.wait()

    def wake(self) -> None:
        """Have `take` look again, because what `only_urgent` says may have changed."""
        self._arrived.set()

    async def settle(self, deliveries: Iterable[Delivery]) -> None:
        """Acknowledge deliveries, each once; those of an epoch that is over are dropped."""
        await self._settle(deliveries, DeliveryChannel.settle)

    async def reject(self, deliveries: Iterable[Delivery]) -> None:
        """Set deliveries aside for good: the queue's policy dead-letters them, or they are gone."""
        await self._settle(deliveries, DeliveryChannel.reject)

    async def _settle(
        self,
        deliveries: Iterable[Delivery],
        write: Callable[[DeliveryChannel, list[int]], Awaitable[None]],
    ) -> None:
        channel = self._channel
        tags = [delivery.tag for delivery in deliveries if delivery.epoch == self._epoch]
        if channel is None or not tags:
            return
        try:
            async with asyncio.timeout(self._link.settings.broker_confirm_timeout):
                await write(channel, tags)
        except TimeoutError:
            self._break(channel, "Acknowledgements could not be written in time.")

    async def stop(self) -> None:
        """Consume no more; what arrived can still be taken, what was taken can still be settled."""
        self._stopped = True
        self._arrived.set()
        channel = self._channel
        if channel:
            with suppress(BrokerUnavailable), driver.translated("Consuming could not be cancelled"):
                for tag in channel.queues:
                    await channel.basic_cancel(tag, timeout=CLOSING)

    async def bind(self, binding: Binding) -> None:
        """
        Bind one of the queues, now and after every reconnect.

        Raises:
            BrokerUnavailable: not bound now; it will be after the reconnect.
        """
        self._bindings[binding] = None
        if self._channel:
            with driver.translated(f"Queue {binding.queue!r} could not be bound"):
                await self._channel.queue_bind(
                    binding.queue,
                    binding.exchange,
                    binding.key,
                    timeout=self._link.settings.broker_connect_timeout,
                )

    async def unbind(self, binding: Binding) -> None:
        """Undo `bind`; a binding that is gone already is fine."""
        self._bindings.pop(binding, None)
        if self._channel:
            with suppress(BrokerUnavailable), driver.translated("It could not be unbound"):
                await self._channel.queue_unbind(
                    binding.queue,
                    binding.exchange,
                    binding.key,
                    timeout=self._link.settings.broker_connect_timeout,
                )

    async def _supervise(self) -> None:
        watchdog = Watchdog(self._link, self._queues)
        while not self._stopped:
            try:
                async with asyncio.timeout(self._link.settings.broker_watchdog):
                    await self._broken.wait()
            except TimeoutError:
                channel = self._channel
                problem = await watchdog.look(channel) if channel else ""
                if problem and channel and not self._stopped:
                    self._break(channel, problem)
            else:
                await self._again()

    async def _again(self) -> None:
        failures = 0
        while not self._stopped:
            try:
                await self._subscribe()
            except BrokerError as error:
                self._link.report(str(error))
                await asyncio.sleep(self._link.pause(failures))
                failures += 1
            else:
                self._link.report("")
                return

    async def _subscribe(self) -> None:
        seconds = self._link.settings.broker_connect_timeout
        connection = await self._link.connection()
        if connection is self._connection:  # On a new one the link has just done it.
            await self._link.restore(connection)
        self._connection = connection
        channel = await driver.open_channel(connection, DeliveryChannel, seconds)
        try:
            await self._begin(channel, seconds)
        except BaseException:
            # Half begun it would go on delivering, and nobody would ever settle that.
            self._channel = None
            self._buffer.clear()
            self._link.close_later(channel)
            raise

    async def _begin(self, channel: DeliveryChannel, seconds: float) -> None:
        self._broken.clear()
        self._epoch += 1
        channel.begin(self._epoch, self._deliver, self._link.settings)
        driver.when_closed(
            channel, lambda reason: self._break(channel, f"Consuming ended: {reason}.")
        )
        channel.on_consumer_cancel_callbacks.add(
            lambda _: self._break(channel, "The broker cancelled consuming; a queue is gone.")
        )
        self._channel = channel
        with driver.translated("Consuming could not begin"):
            for binding in self._bindings:
                await channel.queue_bind(
                    binding.queue, binding.exchange, binding.key, timeout=seconds
                )
            before = None
            for queue in self._queues:
                prefetch = self._prefetch[queue]
                if prefetch != before:  # it holds for the consumers that begin after it
                    await channel.basic_qos(prefetch_count=prefetch, timeout=seconds)
                    before = prefetch
                await channel.consume(queue, seconds)

    def _deliver(self, delivery: Delivery) -> None:
        if self._channel and delivery.epoch == self._epoch:
            self._buffer.append(delivery)
            self._arrived.set()

    def _break(self, channel: DeliveryChannel, problem: str) -> None:
        if channel is not self._channel:
            return
        self._channel = None
        self._buffer.clear()
        self._broken.set()
        if self._link.state.phase is not Phase.CONNECTING:
            self._link.report(problem)
        self._link.close_later(channel)


def _by_queue(queues: Sequence[str], prefetch: int | Mapping[str, int]) -> Mapping[str, int]:
    return dict.fromkeys(queues, prefetch) if isinstance(prefetch, int) else prefetch
