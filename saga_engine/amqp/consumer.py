"""
A consumer: takes deliveries in batches and acknowledges them in batches.

`take` returns what has arrived and never waits for a batch to fill. The prefetch bounds the
unacknowledged deliveries, and a BatchBudget bounds what is taken at once. When consuming ends (a
deleted queue, a closed channel, a lost connection, a broker that dropped the consumer), the
topology is declared again and consuming starts again, as the next generation. Deliveries of an
earlier generation are not acknowledged: the broker delivers them again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress

from saga_engine.amqp import driver
from saga_engine.amqp.batch_budget import BatchBudget, DeliveryBuffer
from saga_engine.amqp.connection import SupervisedConnection
from saga_engine.amqp.consumer_watchdog import ConsumerWatchdog
from saga_engine.amqp.delivery_channel import DeliveryChannel
from saga_engine.amqp.driver import AmqpConnection
from saga_engine.amqp.optional_queues import OptionalQueues, QueueRefused
from saga_engine.amqp.queue_sharing import QueueSharing, SharedQueues
from saga_engine.errors import BrokerError, BrokerUnavailable
from saga_engine.lifecycle import AsyncResource
from saga_engine.protocol.message import Delivery
from saga_engine.protocol.topology import Binding
from saga_engine.vocabulary import ConnectionState
from saga_engine.waiting import wait_for_event


def _always_false() -> bool:
    return False


UNLIMITED_BUDGET = BatchBudget()
"""A budget without limits."""


class Consumer(AsyncResource):
    """
    Consumes `queues` over one connection; `async with` owns it.

    Args:
        prefetch: the most unacknowledged deliveries of each queue, or a number for each queue; the
            setting `reply_prefetch` when it is left out.
        urgent: the queues whose deliveries are taken before those of the others.
        optional: more queues, in this order, which are consumed as far as they exist.
        shared: queues that are shared out among the processes that consume them.
    """

    def __init__(
        self,
        connection: SupervisedConnection,
        queues: Sequence[str],
        *,
        prefetch: int | Mapping[str, int] | None = None,
        urgent: Collection[str] = (),
        optional: Sequence[str] = (),
        shared: SharedQueues | None = None,
    ) -> None:
        self._supervised = connection
        self._required_queues = tuple(queues)
        self._optional_queues = OptionalQueues(connection, optional)
        self._sharing = QueueSharing(connection, shared) if shared else None
        self._consumers_changing = asyncio.Lock()
        self._prefetch = _prefetch_by_queue(
            (*queues, *optional), prefetch or connection.settings.reply_prefetch
        )
        self._extra_bindings: dict[Binding, None] = {}
        self._generation = 0
        self._connection: AmqpConnection | None = None
        self._channel: DeliveryChannel | None = None
        self._buffer = DeliveryBuffer(urgent)
        self._wakeup = asyncio.Event()
        self._consuming_lost = asyncio.Event()
        self._stopped = False

    async def _open(self, resources: AsyncExitStack) -> None:
        await self._subscribe_first()
        resources.push_async_callback(self._close_channel)
        tasks = await resources.enter_async_context(asyncio.TaskGroup())
        supervisor_task = tasks.create_task(self._supervise())
        resources.callback(supervisor_task.cancel)
        resources.callback(self._mark_stopped)

    def _mark_stopped(self) -> None:
        self._stopped = True
        self._wakeup.set()

    async def _close_channel(self) -> None:
        channel, self._channel = self._channel, None
        if channel:
            await driver.close(channel, driver.CLOSE_TIMEOUT)

    @property
    def _queues(self) -> tuple[str, ...]:
        return self._required_queues + self._optional_queues.found

    @property
    def generation(self) -> int:
        """How often consuming has started."""
        return self._generation

    @property
    def buffered_count(self) -> int:
        """How many deliveries have arrived and are not taken yet."""
        return len(self._buffer)

    async def take(
        self,
        limit: int,
        budget: BatchBudget = UNLIMITED_BUDGET,
        *,
        only_urgent: Callable[[], bool] = _always_false,
    ) -> list[Delivery]:
        """
        Wait for at least one delivery and return what has arrived, up to `limit`.

        Args:
            budget: the most bytes and JSON values of all bodies; one delivery is always taken.
            only_urgent: whether to take only the deliveries of urgent queues; called whenever a
                delivery arrives, and after `wake`.

        Returns:
            An empty list only after `stop`, when every buffered delivery is taken.
        """
        while True:
            taken = self._buffer.take(limit, budget, only_urgent=only_urgent())
            if taken or (self._stopped and not self._buffer):
                return taken
            self._wakeup.clear()
            await self._wakeup.wait()

    def wake(self) -> None:
        """Have `take` evaluate `only_urgent` again."""
        self._wakeup.set()

    async def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        """Acknowledge deliveries, each once; those of an earlier generation are left out."""
        await self._write_outcome(deliveries, DeliveryChannel.acknowledge)

    async def reject(self, deliveries: Iterable[Delivery]) -> None:
        """Reject deliveries: the queue's policy dead-letters them; without one they are deleted."""
        await self._write_outcome(deliveries, DeliveryChannel.reject)

    async def _write_outcome(
        self,
        deliveries: Iterable[Delivery],
        write_frames: Callable[[DeliveryChannel, list[int]], Awaitable[None]],
    ) -> None:
        channel = self._channel
        tags = [
            delivery.delivery_tag
            for delivery in deliveries
            if delivery.generation == self._generation
        ]
        if channel is None or not tags:
            return
        try:
            async with asyncio.timeout(self._supervised.settings.broker_confirm_timeout):
                await write_frames(channel, tags)
        except TimeoutError:
            self._stop_consuming(channel, "Acknowledgements could not be written in time.")

    async def stop(self) -> None:
        """Stop consuming; buffered deliveries can still be taken, and taken ones acknowledged."""
        self._mark_stopped()
        async with self._consumers_changing:
            channel = self._channel
            if channel:
                with (
                    suppress(BrokerUnavailable),
                    driver.translate_errors("Consuming could not be cancelled"),
                ):
                    for tag in tuple(channel.queue_by_consumer_tag):
                        await channel.basic_cancel(tag, timeout=driver.CLOSE_TIMEOUT)

    async def bind(self, binding: Binding) -> None:
        """
        Bind one of the queues, now and after every reconnect.

        Raises:
            BrokerUnavailable: it is not bound now, and will be after the reconnect.
        """
        self._extra_bindings[binding] = None
        if self._channel:
            with driver.translate_errors(f"Queue {binding.queue!r} could not be bound"):
                await self._channel.queue_bind(
                    binding.queue,
                    binding.exchange,
                    binding.binding_key,
                    timeout=self._supervised.settings.broker_connect_timeout,
                )

    async def unbind(self, binding: Binding) -> None:
        """Undo `bind`; a binding that does not exist is not an error."""
        self._extra_bindings.pop(binding, None)
        if self._channel:
            with suppress(BrokerUnavailable), driver.translate_errors("It could not be unbound"):
                await self._channel.queue_unbind(
                    binding.queue,
                    binding.exchange,
                    binding.binding_key,
                    timeout=self._supervised.settings.broker_connect_timeout,
                )

    async def _supervise(self) -> None:
        watchdog = ConsumerWatchdog(self._supervised)
        optional_queues = self._optional_queues
        while not self._stopped:
            interval = self._supervised.settings.broker_topology_check_interval
            if await wait_for_event(self._consuming_lost, interval):
                await self._resubscribe()
            else:
                channel = self._channel
                problem = await watchdog.check(channel, self._queues) if channel else ""
                if channel and not problem and not self._stopped:
                    changed = watchdog.consumers_changed
                    search = optional_queues.should_search(consumers_changed=changed)
                    problem = await self._change_consumers(channel, search=search)
                if problem and channel and not self._stopped:
                    self._stop_consuming(channel, problem)

    async def _change_consumers(self, channel: DeliveryChannel, *, search: bool) -> str:
        """Consume queues that exist now, and adjust the share; return what prevents it."""
        async with self._consumers_changing:
            if self._stopped or channel is not self._channel:
                return ""
            try:
                if search:
                    await self._consume_new_queues(channel)
                if self._sharing:
                    await self._sharing.adjust(channel)
            except BrokerUnavailable as error:
                return str(error)
        return ""

    async def _consume_new_queues(self, channel: DeliveryChannel) -> None:
        seconds = self._supervised.settings.broker_connect_timeout
        for queue in await self._optional_queues.search():
            await self._optional_queues.consume(channel, queue, seconds, self._prefetch[queue])

    async def _subscribe_first(self) -> None:
        while True:
            with suppress(QueueRefused):  # each queue is refused once
                return await self._subscribe()

    async def _resubscribe(self) -> None:
        failures = 0
        while not self._stopped:
            try:
                await self._subscribe()
            except BrokerError as error:
                self._supervised.report_problem(str(error))
                await asyncio.sleep(self._supervised.backoff_delay(failures))
                failures += 1
            else:
                self._supervised.report_problem("")
                return

    async def _subscribe(self) -> None:
        seconds = self._supervised.settings.broker_connect_timeout
        connection = await self._supervised.wait_connected()
        if connection is self._connection:  # A new connection has just declared it.
            await self._supervised.redeclare_topology(connection)
        self._connection = connection
        self._optional_queues.forget()
        await self._optional_queues.search()
        async with self._consumers_changing:
            if self._stopped:
                return
            channel = await driver.open_channel(connection, DeliveryChannel, seconds)
            try:
                await self._start_consuming(channel, seconds)
            except BaseException:
                # A channel that consumes some of the queues would hold deliveries that are never
                # taken.
                self._channel = None
                self._buffer.clear()
                self._supervised.close_in_background(channel)
                raise

    async def _start_consuming(self, channel: DeliveryChannel, seconds: float) -> None:
        """Consume all queues, or those before `stop`, which then ends what was started."""
        self._consuming_lost.clear()
        self._generation += 1
        channel.configure(self._generation, self._buffer_delivery, self._supervised.settings)
        driver.on_closed(
            channel, lambda reason: self._stop_consuming(channel, f"Consuming ended: {reason}.")
        )
        channel.on_consumer_cancel_callbacks.add(
            lambda _: self._stop_consuming(
                channel, "The broker cancelled the consumer; a queue is gone."
            )
        )
        self._channel = channel
        # A refusal closes the channel, so those that may be refused come before other deliveries.
        for queue in self._optional_queues.found:
            if not self._stopped:
                await self._optional_queues.consume(channel, queue, seconds, self._prefetch[queue])
        with driver.translate_errors("Consuming could not start"):
            for binding in tuple(self._extra_bindings):
                if binding in self._extra_bindings:  # `unbind` may have removed it meanwhile
                    await channel.queue_bind(
                        binding.queue, binding.exchange, binding.binding_key, timeout=seconds
                    )
            for queue in self._required_queues:
                if not self._stopped:
                    await channel.consume_queue(queue, seconds, prefetch=self._prefetch[queue])
        if self._sharing and not self._stopped:
            self._sharing.reset()
            await self._sharing.adjust(channel)

    def _buffer_delivery(self, delivery: Delivery) -> None:
        if self._channel and delivery.generation == self._generation:
            self._buffer.append(delivery)
            self._wakeup.set()

    def _stop_consuming(self, channel: DeliveryChannel, problem: str) -> None:
        if channel is not self._channel:
            return
        self._channel = None
        self._buffer.clear()
        self._consuming_lost.set()
        if self._supervised.status.state is not ConnectionState.CONNECTING:
            self._supervised.report_problem(problem)
        self._supervised.close_in_background(channel)


def _prefetch_by_queue(
    queues: Sequence[str], prefetch: int | Mapping[str, int]
) -> Mapping[str, int]:
    return dict.fromkeys(queues, prefetch) if isinstance(prefetch, int) else prefetch
