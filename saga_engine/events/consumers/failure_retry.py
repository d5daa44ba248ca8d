"""Messages that were kept are applied again, because an operator has requested it."""

from saga_engine.errors import StoreUnavailable
from saga_engine.events.consumers import consumed_events, kept_messages
from saga_engine.events.consumers.batch_result import BatchResult
from saga_engine.events.consumers.kept_messages import FailureKind, KeptMessage
from saga_engine.events.consumers.partition_writer import PartitionWriter
from saga_engine.events.consumers.received import Received
from saga_engine.events.handlers.poison_event import overdue_poison, poison_of
from saga_engine.events.handlers.sql_call import raise_if_unavailable
from saga_engine.events.readers.owned_loop import NotOwner
from saga_engine.protocol.unreadable import UnreadableMessage
from saga_engine.store.database import SqlAlchemyTransaction


class FailureRetry:
    """
    Applies the messages of one partition that were kept, each in a transaction of its own.

    Those of a parked stream are applied in their order, up to the first that fails again.

    Args:
        writer: of the partition.
    """

    def __init__(self, writer: PartitionWriter) -> None:
        self._writer = writer
        self._last_id = 0
        self._overdue = 0  # the last message whose function took too long

    def begin(self) -> None:
        """Begin with the first message again."""
        self._last_id = 0

    async def apply_next(self) -> bool:
        """
        Apply the next message whose retry is requested; False if there is none.

        Raises:
            NotOwner: another process has taken the partition, or an operator has paused it.
            StoreUnavailable: whether it was committed is unknown; take the lease again.
        """
        self._writer.call_limit.forget()
        async with self._writer.locked() as tx:
            kept = await kept_messages.next_retried(tx, self._writer.key, self._last_id)
        if kept is None:
            return False
        self._last_id = kept.id
        await self._writer.prepare([kept.message])
        try:
            async with self._writer.locked() as tx:
                await self._apply(tx, kept)
        except NotOwner:
            raise
        except Exception as error:  # noqa: BLE001 - it is of this message, or raised below
            await self._fail_again(kept, error)
        return True

    async def _apply(self, tx: SqlAlchemyTransaction, kept: KeptMessage) -> None:
        event = self._writer.read(kept.message)
        if isinstance(event, UnreadableMessage):
            await kept_messages.fail_again(tx, kept, FailureKind.UNREADABLE, event.explanation, "")
            return
        result = BatchResult()
        new_keys = []
        if event is not None and await self._is_new(tx, kept, event):
            await self._writer.call(tx, event)
            result.applied = 1
            # That of a parked or waiting event was noted when it was kept.
            new_keys = [] if event.key == kept.event else [event.key]
        await kept_messages.remove(tx, kept.id)
        await self._writer.save(tx, result, new_keys)

    async def _is_new(self, tx: SqlAlchemyTransaction, kept: KeptMessage, event: Received) -> bool:
        if event.key == kept.event:
            return True
        return not await consumed_events.known(tx, self._writer.key.consumer, [event.key])

    async def _fail_again(self, kept: KeptMessage, error: Exception) -> None:
        """
        Note that a message has failed again.

        Raises:
            Exception: the error, which says nothing about the message.
        """
        overdue = self._writer.call_limit.overdue
        is_overdue = overdue is not None and isinstance(error, StoreUnavailable)
        # It may block the event loop, or wait in one statement; it is blamed when it is late again.
        if not is_overdue or self._overdue != kept.id:
            self._overdue = kept.id if is_overdue else 0
            raise_if_unavailable(error)
        event = self._writer.read(kept.message)
        if not isinstance(event, Received):
            raise error
        poison = (
            overdue_poison(overdue, self._writer.call_limit)
            if overdue is not None and is_overdue
            else poison_of(event, error, "consumer")
        )
        # One that could not be read before can be read now: its stream does not wait for it.
        kind = FailureKind.PARKED if event.key == kept.event else FailureKind.UNREADABLE
        async with self._writer.locked() as tx:
            await kept_messages.fail_again(tx, kept, kind, poison.error, poison.trace)
