"""
Transactions of one partition of a consumer: the effects of its events, and what is noted with them.

Each transaction locks the row of the partition, and ends without an effect if another process has
taken the lease, or an operator has paused the partition.
"""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

from saga_engine.events.consumers import consumed_events, consumer_table, kept_messages
from saga_engine.events.consumers.batch_result import (
    BatchResult,
    unreadable_message,
    waiting_message,
)
from saga_engine.events.consumers.consumer_table import (
    ConsumerState,
    Holder,
    Lease,
    PartitionKey,
    Progress,
)
from saga_engine.events.consumers.event_reader import EventReader
from saga_engine.events.consumers.interfaces import IncomingMessage
from saga_engine.events.consumers.kept_messages import FailureKind, Kept, NewFailure
from saga_engine.events.consumers.late_events import LateEvents
from saga_engine.events.consumers.received import Received
from saga_engine.events.handlers.sql_call import CallLimit, SqlCall, execute_call
from saga_engine.events.readers.owned_loop import NotOwner
from saga_engine.message_context import MessageContext, handling
from saga_engine.payload.guard import CallTimeLimit
from saga_engine.protocol.unreadable import UnreadableMessage
from saga_engine.settings import Settings
from saga_engine.store.database import Database, SqlAlchemyTransaction


class TooManyKept(Exception):
    """A message cannot be kept, because as many are kept as the settings allow."""

    def __init__(self, failure: NewFailure) -> None:
        super().__init__()
        self.failure = failure


class PartitionWriter:
    """
    Writes what one partition of a consumer does.

    `key` is the partition, `kept` what waits for a correction, and `call_limit` how long each
    function may take.

    Args:
        database: of the effects.
        reader: of the messages of the consumer whose functions are called.
        key: the partition.
        holder: this process, with the source of the messages.
        settings: the lease, and how many messages may be kept.
        time_limit: interrupts models and upcasters.
    """

    def __init__(
        self,
        database: Database,
        reader: EventReader,
        key: PartitionKey,
        holder: Holder,
        settings: Settings,
        time_limit: CallTimeLimit,
    ) -> None:
        self.kept = Kept(frozenset(), 0, retry_requested=False)
        # A function that does not return leaves time to find its event.
        self.call_limit = CallLimit(settings.database_transaction_timeout / 2)
        self.key = key
        self._database = database
        self._reader = reader
        self._consumer = reader.consumer
        self._holder = holder
        self._settings = settings
        self._time_limit = time_limit
        self._late_events = LateEvents()
        self._now = datetime.min.replace(tzinfo=UTC)

    async def acquire(self) -> Lease | None:
        """Take or renew the lease; None when the partition is not active or another's."""
        async with self._database.transaction() as tx:
            lease = self._settings.projection_lease
            found = await consumer_table.acquire(tx, self.key, self._holder, lease)
            if found:
                self._now = found.acquired_at
                self.kept = await kept_messages.read_kept(tx, self.key)
        return found

    async def prepare(self, messages: Sequence[IncomingMessage]) -> None:
        """
        Read the schemas of messages before these are read.

        Raises:
            StoreError: the registry is unavailable.
        """
        await self._reader.prepare(messages)

    def read(self, message: IncomingMessage) -> Received | UnreadableMessage | None:
        """Read the event in a message; None if the consumer has no function for it."""
        return self._reader.read(message, self._now)

    async def apply(self, messages: Sequence[IncomingMessage]) -> BatchResult:
        """
        Apply messages in one transaction; the result says how many of them.

        They are read first, for `projection_batch_seconds` and until a message is read: a body in
        Avro can have thousands of values, and nothing else runs meanwhile.

        Raises:
            NotOwner: nothing was written.
            TooManyKept: nothing was written.
            Exception: of an event, or of the database; nothing was written.
        """
        self.call_limit.forget()
        await self.prepare(messages)
        read = self._read_first(messages)
        result = BatchResult(done=[*messages[: len(read)]])
        keys = {each.key for each in read if isinstance(each, Received)}
        new_keys: list[UUID] = []
        async with self.locked() as tx:
            known = {*await consumed_events.known(tx, self.key.consumer, keys)} if keys else set()
            for message, event in zip(result.done, read, strict=True):
                if event is None:
                    result.passed += 1
                elif isinstance(event, UnreadableMessage):
                    await self._keep_unreadable(tx, message, event, result)
                elif event.key in known:
                    result.duplicates += 1
                else:
                    known.add(event.key)
                    new_keys.append(event.key)
                    await self._apply_event(tx, message, event, result)
            await self.save(tx, result, new_keys)
        self._count_kept(result.kept + len(result.failures))
        return result

    def _read_first(
        self, messages: Sequence[IncomingMessage]
    ) -> list[Received | UnreadableMessage | None]:
        until = time.monotonic() + self._settings.projection_batch_seconds
        read: list[Received | UnreadableMessage | None] = []
        for each in messages:
            read.append(self.read(each))
            if time.monotonic() >= until:
                break
        return read

    async def _apply_event(
        self,
        tx: SqlAlchemyTransaction,
        message: IncomingMessage,
        event: Received,
        result: BatchResult,
    ) -> None:
        if event.stream in self.kept.streams:
            await self._keep(tx, waiting_message(event, message), result)
            result.kept += 1
            return
        await self.call(tx, event)
        result.applied += 1
        result.late += self._late_events.is_late(event)
        result.last_event_at = event.recorded_at

    async def call(self, tx: SqlAlchemyTransaction, event: Received) -> None:
        """Call the function of an event; what it appends is caused by that event."""
        handler = self._consumer.handlers[event.type]
        content = handler.read(event, self._time_limit)
        context = MessageContext(
            correlation_id=event.correlation_id or str(event.id),
            causation_id=str(event.id),
            actor=event.actor,
        )
        with handling(context):
            await execute_call(tx, SqlCall(handler, content, event), self.call_limit)

    async def _keep_unreadable(
        self,
        tx: SqlAlchemyTransaction,
        message: IncomingMessage,
        unreadable: UnreadableMessage,
        result: BatchResult,
    ) -> None:
        failure = unreadable_message(message, unreadable.explanation)
        await self._keep(tx, failure, result)
        result.failures.append(failure)

    async def _keep(
        self, tx: SqlAlchemyTransaction, failure: NewFailure, result: BatchResult
    ) -> None:
        kept = self.kept.messages + result.kept + len(result.failures)
        if kept >= self._settings.max_consumer_failures:
            raise TooManyKept(failure)
        await kept_messages.keep(tx, self.key, failure)

    async def park(self, message: IncomingMessage, failure: NewFailure) -> BatchResult:
        """Keep the message of an event that could not be applied; its stream waits for it."""
        parked = replace(
            failure,
            kind=FailureKind.PARKED,
            message=message,
        )
        result = BatchResult(done=[message])
        async with self.locked() as tx:
            await self._keep(tx, parked, result)
            await self.save(tx, result, [parked.event])
        result.failures.append(parked)
        self.kept = replace(self.kept, streams=self.kept.streams | ({parked.stream} - {""}))
        self._count_kept(1)
        return result

    async def stop(self, failure: NewFailure) -> BatchResult:
        """Stop the partition before a message, which stays in the source."""
        stopped = replace(failure, kind=FailureKind.STOPPED, message=None)
        async with self.locked() as tx:
            await kept_messages.keep(tx, self.key, stopped)
            active = [ConsumerState.ACTIVE]
            await consumer_table.set_state(tx, self.key, ConsumerState.STOPPED, active)
        return BatchResult(failures=[stopped], stopped=True)

    def _count_kept(self, messages: int) -> None:
        if messages:
            self.kept = replace(self.kept, messages=self.kept.messages + messages)

    async def save(
        self, tx: SqlAlchemyTransaction, result: BatchResult, new_keys: Sequence[UUID]
    ) -> None:
        """Save what a transaction has done, and renew the lease."""
        await consumed_events.insert(tx, self.key.consumer, new_keys)
        progress = Progress(
            next_offset=result.next_offset,
            last_message=result.last_message,
            applied=result.applied,
            duplicates=result.duplicates,
        )
        lease = self._settings.projection_lease
        result.saved_at = await consumer_table.save(
            tx, self.key, progress, self._holder.owner, lease
        )

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[SqlAlchemyTransaction]:
        """
        Begin a transaction with the row of the partition locked.

        Raises:
            NotOwner: this process is not its owner, or it is not active.
        """
        async with self._database.transaction() as tx:
            if not await consumer_table.lock(tx, self.key, self._holder):
                raise NotOwner
            yield tx
