"""One partition of a consumer in one process: take the lease, apply batches, acknowledge them."""

import asyncio
from collections.abc import Sequence

from saga_engine.backoff import Backoff
from saga_engine.errors import BrokerError
from saga_engine.events.consumers.batch_result import BatchResult
from saga_engine.events.consumers.consumer_batch import BatchApplier
from saga_engine.events.consumers.consumer_table import PartitionKey
from saga_engine.events.consumers.failure_retry import FailureRetry
from saga_engine.events.consumers.interfaces import (
    IncomingMessage,
    Source,
    StartPoint,
    Subscription,
)
from saga_engine.events.consumers.kept_messages import FailureKind, NewFailure
from saga_engine.events.consumers.partition_writer import PartitionWriter
from saga_engine.events.handlers.on_poison import OnPoison
from saga_engine.events.readers.batch_size import BatchSize
from saga_engine.events.readers.owned_loop import MAX_RETRY_DELAY, NotOwner, OwnedLoop
from saga_engine.events.readers.turns import Turn
from saga_engine.telemetry.events import (
    ConsumerAcquired,
    ConsumerBatchApplied,
    ConsumerMessageKept,
    ConsumerSourceUnavailable,
    ConsumerStopped,
)
from saga_engine.waiting import wait_for_event


class PartitionRunner:
    """
    Consumes one partition while this process is its owner.

    Args:
        key: the partition.
        source: where its events come from.
        writer: of the partition.
        on_poison: what happens when an event can never be applied.
        loop: runs it, and reports errors.
        slots: one is held while messages are applied, so that a consumer with many partitions
            does not take all connections.
    """

    def __init__(
        self,
        key: PartitionKey,
        source: Source,
        writer: PartitionWriter,
        on_poison: OnPoison | str,
        loop: OwnedLoop,
        slots: asyncio.Semaphore,
    ) -> None:
        self.key = key
        self._source = source
        self._writer = writer
        self._applier = BatchApplier(writer, on_poison)
        self._retry = FailureRetry(writer)
        self._loop = loop
        self._slots = slots
        self._settings = settings = loop.settings
        self._size = BatchSize(settings.projection_batch_seconds, settings.consumer_batch_size)
        self._start = StartPoint(None)
        self._renew_at = 0.0
        self._source_failures = 0
        self.problem: str | None = None
        """Why its source cannot be consumed now, in a sentence; None: nothing is wrong."""

    async def run(self, stop: asyncio.Event, turn: Turn) -> None:
        """Consume until *stop* is set, whenever it is the *turn* of this process."""
        await self._loop.run(self, stop, turn)

    def turn_failed(self) -> None:
        """Make the next batch smaller: this one may have exceeded a limit."""
        self._size.failed()

    async def acquire(self) -> bool:
        """Take the lease; False when the partition is not active or has another owner."""
        lease = await self._writer.acquire()
        if lease is None:
            self.problem = None
            return False
        self._start = lease.start
        self._plan_renewal()
        self._loop.emit(
            ConsumerAcquired(
                consumer=self.key.consumer,
                partition=self.key.partition,
                next_offset=lease.start.offset,
            )
        )
        return True

    async def follow(self, stop: asyncio.Event) -> None:
        """Consume until the partition stops, is paused, or has another owner."""
        try:
            subscribed = self._source.subscribe(self.key.partition, self._start)
            async with subscribed as subscription:
                await self._consume(subscription, stop)
        except BrokerError as error:
            backoff = Backoff(self._settings.event_poll_interval_max, MAX_RETRY_DELAY)
            self._report_problem(str(error))
            await wait_for_event(stop, backoff.delay(self._source_failures))
            self._source_failures += 1

    def _report_problem(self, problem: str) -> None:
        """Report why the source cannot be consumed, unless it is the same as before."""
        if problem != self.problem:
            self._loop.emit(
                ConsumerSourceUnavailable(
                    consumer=self.key.consumer,
                    partition=self.key.partition,
                    problem=problem,
                )
            )
        self.problem = problem

    async def _consume(self, subscription: Subscription, stop: asyncio.Event) -> None:
        while not stop.is_set():
            if self._now() >= self._renew_at:
                await self._renew()
            if self._writer.kept.retry_requested:
                async with self._slots:
                    await self._retry_kept(stop)
            interval = self._settings.event_poll_interval_max
            messages = await subscription.take(self._size.events, interval)
            self.problem = None
            while messages and not stop.is_set():
                self._source_failures = 0
                result = await self._apply(messages)
                await subscription.acknowledge(result.done)
                if result.stopped:
                    return
                messages = messages[len(result.done) :]

    async def _apply(self, messages: Sequence[IncomingMessage]) -> BatchResult:
        async with self._slots:
            if self._now() >= self._renew_at:  # waiting took long
                await self._renew()
            started_at = self._now()
            result = await self._applier.apply(messages)
        if result.next_offset is not None:
            self._start = StartPoint(result.next_offset)
        self._plan_renewal()
        self._report(result, self._now() - started_at)
        return result

    async def _retry_kept(self, stop: asyncio.Event) -> None:
        """Apply the messages again that an operator wants to be retried."""
        self._retry.begin()
        while not stop.is_set() and await self._retry.apply_next():
            pass
        await self._renew()

    async def _renew(self) -> None:
        """
        Renew the lease.

        Raises:
            NotOwner: it is paused, stopped or rewound, or another process has it.
        """
        lease = await self._writer.acquire()
        if lease is None or lease.start.offset != self._start.offset:
            raise NotOwner
        self._plan_renewal()

    def _plan_renewal(self) -> None:
        self._renew_at = self._now() + self._settings.projection_lease / 3

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _report(self, result: BatchResult, duration_s: float) -> None:
        self._size.succeeded(len(result.done), duration_s)
        self._loop.emit(
            ConsumerBatchApplied(
                consumer=self.key.consumer,
                applied=result.applied,
                duplicates=result.duplicates,
                late=result.late,
                passed=result.passed,
                kept=result.kept,
                duration_s=duration_s,
                delay_s=result.delay_s,
            )
        )
        for failure in result.failures:
            self._loop.emit(self._failure_event(failure))

    def _failure_event(self, failure: NewFailure) -> ConsumerStopped | ConsumerMessageKept:
        name, partition = self.key.consumer, self.key.partition
        next_command = f"saga-engine consumers show {name}"
        if failure.kind is FailureKind.STOPPED:
            return ConsumerStopped(
                consumer=name,
                partition=partition,
                stream=failure.stream,
                event_type=failure.type,
                problem=failure.error,
                next_command=next_command,
            )
        return ConsumerMessageKept(
            consumer=name,
            partition=partition,
            kind=failure.kind.value,
            stream=failure.stream,
            event_type=failure.type,
            problem=failure.error,
            next_command=next_command,
        )
