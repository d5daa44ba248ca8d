"""
The retry of a parked stream: its next events, whose turn was earlier, in one transaction.

It stops at the next event that cannot be applied, at which the stream waits again. A missing table
or column stops the projection, as in a batch.
"""

from dataclasses import replace

from saga_engine.errors import StoreUnavailable
from saga_engine.events.handlers.poison_event import PoisonEvent, overdue_poison, poison_of
from saga_engine.events.handlers.sql_call import SqlCall, TransactionEnded
from saga_engine.events.projections.event_batch import BatchResult, StreamRetry
from saga_engine.events.projections.locked_version import LockedVersion, VersionLock
from saga_engine.events.projections.overdue_call import OverdueCall
from saga_engine.events.projections.poison_search import PoisonSearch

Retried = tuple[BatchResult, dict[str, int]]
"""What has become of a retry, and the streams that are parked after it."""


class StreamRetrier:
    """
    Retries the parked streams of one version of a projection.

    Args:
        lock: opens its transactions.
        search: applies the events.
        overdue: the last call that took the time of a transaction.
    """

    def __init__(
        self,
        lock: VersionLock,
        search: PoisonSearch,
        overdue: OverdueCall,
    ) -> None:
        self._lock = lock
        self._search = search
        self._overdue = overdue

    async def retry(self, retry: StreamRetry) -> Retried:
        """
        Apply events of a parked stream, or those before one whose function was late.

        Nothing is applied if an operator has skipped an event since they were read.

        Raises:
            NotOwner: nothing was written; acquire the lease again.
            StoreUnavailable: whether it was committed is unknown; acquire the lease again.
        """
        late = self._overdue.among(retry.events)
        if late is None:
            return await self._attempt(retry)
        failed = late.recorded
        before = [each for each in retry.events if each.position < failed.position]
        if before:
            following = replace(
                retry.parked, next_position=failed.position, next_version=failed.version
            )
            return await self._attempt(replace(retry, events=before, following=following))
        return await self._blame_late(retry, late)

    async def _attempt(self, retry: StreamRetry) -> Retried:
        limit = self._search.call_limit
        limit.forget()
        try:
            return await self._apply(retry)
        except TransactionEnded as error:
            return await self._blame(retry, poison_of(error.recorded, error))
        except StoreUnavailable:
            if limit.overdue is None:
                raise
        self._overdue.note(limit.overdue)
        return await self.retry(retry)

    async def _apply(self, retry: StreamRetry) -> Retried:
        poison: PoisonEvent | None = None
        async with self._lock.at(retry.checkpoint) as locked:
            parked = await locked.tx.parked_streams()
            if parked.get(retry.parked.stream) == retry.parked.next_position:
                del parked[retry.parked.stream]
                poison = await self._search.apply(locked, retry.events, parked)
                if poison:
                    await _wait_at(locked, retry, poison)
                    parked[poison.recorded.stream] = poison.recorded.position
                else:
                    await self._go_on(locked, retry, parked)
        return _result(retry, poison), parked

    async def _go_on(
        self, locked: LockedVersion, retry: StreamRetry, parked: dict[str, int]
    ) -> None:
        """Save that the events of a retry were applied."""
        if retry.following:
            await locked.tx.advance(retry.following)
            parked[retry.parked.stream] = retry.following.next_position
        else:
            await locked.tx.unpark(retry.parked.stream)
        await locked.save(retry.checkpoint)

    async def _blame_late(self, retry: StreamRetry, late: SqlCall) -> Retried:
        """Let the stream wait at an event whose function was late, unless that was before."""
        async with self._lock.at(retry.checkpoint) as locked:
            is_resolved = await self._overdue.is_resolved(locked.tx)
        self._overdue.forget()
        if is_resolved:
            return await self._attempt(retry)
        return await self._blame(retry, overdue_poison(late, self._search.call_limit))

    async def _blame(self, retry: StreamRetry, poison: PoisonEvent) -> Retried:
        """Let the stream wait at an event that is not called again."""
        async with self._lock.at(retry.checkpoint) as locked:
            await _wait_at(locked, retry, poison)
            parked = await locked.tx.parked_streams()
        return _result(retry, poison), parked


async def _wait_at(locked: LockedVersion, retry: StreamRetry, poison: PoisonEvent) -> None:
    """Let the stream wait at an event, or stop the projection at it: no event is to blame."""
    if poison.lacks_schema:
        await locked.tx.park(poison.recorded)
        await locked.stop(retry.checkpoint, poison)
    else:
        await locked.park(poison)
        await locked.save(retry.checkpoint)


def _result(retry: StreamRetry, poison: PoisonEvent | None) -> BatchResult:
    if poison is None:
        return BatchResult(retry.checkpoint)
    return BatchResult(retry.checkpoint, (poison,), stopped=poison.lacks_schema)
