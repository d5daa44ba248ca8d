"""
One batch of a consumer: applied together, or else one by one until the message that fails is alone.

Each transaction has the effects of its events and the note that they are consumed. An event that
can never be applied stops its partition, or parks its stream. A message that cannot be read is
kept for an operator; nothing waits for it.
"""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from saga_engine.errors import StoreUnavailable
from saga_engine.events.consumers.batch_result import BatchResult, failed_event
from saga_engine.events.consumers.interfaces import IncomingMessage
from saga_engine.events.consumers.partition_writer import PartitionWriter, TooManyKept
from saga_engine.events.consumers.received import Received
from saga_engine.events.handlers.on_poison import OnPoison
from saga_engine.events.handlers.poison_event import PoisonEvent, overdue_poison, poison_of
from saga_engine.events.handlers.sql_call import TransactionEnded, raise_if_unavailable
from saga_engine.events.readers.owned_loop import NotOwner


class BatchApplier:
    """
    Applies the messages of one partition of a consumer.

    Args:
        writer: of the partition.
        on_poison: what happens when an event can never be applied.
    """

    def __init__(self, writer: PartitionWriter, on_poison: OnPoison | str) -> None:
        self._writer = writer
        self._on_poison = on_poison
        self._overdue: UUID | None = None  # the last event whose function took too long

    async def apply(self, messages: Sequence[IncomingMessage]) -> BatchResult:
        """
        Apply messages, and note that they are consumed.

        Returns:
            What became of the first ones: all, unless one has stopped the partition, or reading
            them takes long.

        Raises:
            NotOwner: another process has taken the partition, or an operator has paused it.
            StoreUnavailable: whether they were committed is unknown; take the lease again.
        """
        try:
            return await self._writer.apply(messages)
        except TransactionEnded as error:  # what it has committed is not known
            return await self._writer.stop(failed_event(_poison(error.recorded, error)))
        except Exception as error:  # noqa: BLE001 - which message is to blame is found out
            self._raise_unless_of_messages(error)
        result = BatchResult()
        for each in messages:
            result.add(await self._apply_alone(each))
            if result.stopped:
                break
        return result

    async def _apply_alone(self, message: IncomingMessage) -> BatchResult:
        try:
            return await self._writer.apply([message])
        except Exception as error:  # noqa: BLE001 - it is of this message, or raised below
            self._raise_unless_of_messages(error)
            return await self._fail(message, error)

    async def _fail(self, message: IncomingMessage, error: Exception) -> BatchResult:
        """Stop the partition at a message that cannot be applied, or park its stream."""
        if isinstance(error, TooManyKept):
            return await self._writer.stop(replace(error.failure, error=self._too_many()))
        event = self._writer.read(message)
        if not isinstance(event, Received):
            raise error
        poison = self._overdue_poison(event, error) or _poison(event, error)
        failure = failed_event(poison)
        must_stop = poison.lacks_schema or isinstance(error, TransactionEnded)
        if must_stop or self._on_poison == OnPoison.STOP:
            return await self._writer.stop(failure)
        try:
            return await self._writer.park(message, failure)
        except TooManyKept:
            return await self._writer.stop(replace(failure, error=self._too_many()))

    def _overdue_poison(self, event: Received, error: Exception) -> PoisonEvent | None:
        """
        Blame an event whose function took the time of the transaction; None: another error.

        It may block the event loop, or wait in one statement. It is blamed when it is late again.
        """
        call = self._writer.call_limit.overdue
        if call is None or not isinstance(error, StoreUnavailable):
            return None
        if self._overdue != event.key:
            self._overdue = event.key
            raise error
        return overdue_poison(call, self._writer.call_limit)

    def _raise_unless_of_messages(self, error: Exception) -> None:
        """Raise an error that says nothing about the messages: the lease, or the database."""
        if isinstance(error, NotOwner):
            raise error
        if isinstance(error, StoreUnavailable) and self._writer.call_limit.overdue:
            return
        raise_if_unavailable(error)

    def _too_many(self) -> str:
        return (
            f"{self._writer.kept.messages} messages wait for a correction, as many as"
            " max_consumer_failures allows. Correct and retry them, or skip them."
        )


def _poison(recorded: object, error: Exception) -> PoisonEvent:
    assert isinstance(recorded, Received), "a consumer's events are received"
    return poison_of(recorded, error, "consumer")
