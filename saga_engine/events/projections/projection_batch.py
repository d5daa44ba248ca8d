"""
One batch of a projection: its effects and its checkpoint, in one transaction.

If PostgreSQL refuses a batch, or an async function fails, the batch is applied again, and the event
that cannot be applied is searched. The events before it are committed. Then the projection stops,
or parks the stream of that event and goes on. A missing table or column is the fault of no event,
and always stops it.
"""

from collections.abc import Sequence

from saga_engine.errors import StoreUnavailable
from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.handlers.on_poison import OnPoison
from saga_engine.events.handlers.poison_event import PoisonEvent, overdue_poison, poison_of
from saga_engine.events.handlers.sql_call import (
    CallLimit,
    SqlCall,
    TransactionEnded,
    raise_if_unavailable,
)
from saga_engine.events.projections.event_application import Plan, plan
from saga_engine.events.projections.event_batch import BatchResult, EventBatch, StreamRetry
from saga_engine.events.projections.interfaces import ProjectionStore
from saga_engine.events.projections.locked_version import VersionLock
from saga_engine.events.projections.overdue_call import MAX_OVERDUE_CALLS, OverdueCall
from saga_engine.events.projections.poison_search import PoisonSearch
from saga_engine.events.projections.projection_failures import ParkedStream
from saga_engine.events.projections.projection_version import ProjectionVersion
from saga_engine.events.projections.stream_retry import StreamRetrier
from saga_engine.events.readers.owned_loop import NotOwner
from saga_engine.payload.guard import CallTimeLimit
from saga_engine.settings import Settings


class BatchApplier:
    """
    Applies the batches of one version of a projection.

    Args:
        store: the database.
        projection: a version that is stored.
        owner: this process.
        settings: the lease, and how many streams may be parked.
        time_limit: interrupts calls of pure functions.
    """

    def __init__(
        self,
        store: ProjectionStore,
        projection: ProjectionVersion,
        owner: str,
        settings: Settings,
        time_limit: CallTimeLimit,
    ) -> None:
        self.parked: dict[str, int] = {}
        self._lock = VersionLock(store, owner, settings.projection_lease)
        self._store = store
        self._declaration = projection.declaration
        self._owner = owner
        self._settings = settings
        self._time_limit = time_limit
        # A function that does not return leaves time to find its event.
        self._call_limit = CallLimit(settings.database_transaction_timeout / 2)
        self._overdue = OverdueCall()
        self._search = PoisonSearch(self._declaration, time_limit, self._call_limit)
        self._retrier = StreamRetrier(self._lock, self._search, self._overdue)

    async def acquire(self) -> int | None:
        """
        Take or renew the lease, and read which streams are parked.

        Returns:
            The position to continue from; None when the projection is not active or another
            process has it.
        """
        async with self._store.transaction() as tx:
            found = await tx.acquire(self._owner, self._settings.projection_lease)
            self.parked = await tx.parked_streams()
        return found

    async def apply(self, batch: EventBatch) -> BatchResult:
        """
        Apply a batch, or the events before one whose function was late, and save its checkpoint.

        Raises:
            NotOwner: nothing was written; acquire the lease again.
            StoreUnavailable: whether the batch was committed is unknown; acquire the lease again.
        """
        late = self._overdue.among(batch.events)
        if late is None:
            return await self._attempt(batch)
        position = late.recorded.position
        before = [each for each in batch.events if each.position < position]
        if before:
            return await self._attempt(EventBatch(batch.after, position - 1, before))
        alone = EventBatch(batch.after, position, batch.events[:1])
        if self._overdue.times < MAX_OVERDUE_CALLS:
            return await self._attempt(alone)
        return await self._blame(alone, late)

    async def retried_streams(self) -> list[ParkedStream]:
        """Read which parked streams an operator wants to be retried, the first request first."""
        async with self._store.transaction() as tx:
            return await tx.retried_streams()

    async def retry_stream(self, retry: StreamRetry) -> BatchResult:
        """
        Apply events of a parked stream, unless an operator has skipped one since they were read.

        Raises:
            NotOwner, StoreUnavailable: as `apply`.
        """
        result, parked = await self._retrier.retry(retry)
        self.parked = parked
        return result

    async def _attempt(self, batch: EventBatch) -> BatchResult:
        """Apply a batch; if a function takes the time of the transaction, up to its event."""
        self._call_limit.forget()
        try:
            return await self._apply(batch)
        except TransactionEnded as error:
            return await self._stop_at_end(batch, error)
        except StoreUnavailable:
            if self._call_limit.overdue is None:
                raise
        self._overdue.note(self._call_limit.overdue)
        for each in batch.events:
            each.forget_data()
        return await self.apply(batch)

    async def _apply(self, batch: EventBatch) -> BatchResult:
        planned = self._plan(batch.events)
        if planned.poison is None:
            try:
                async with self._lock.at(batch.after) as locked:
                    await locked.tx.execute(planned.steps, self._call_limit)
                    await locked.save(batch.until)
            except (NotOwner, StoreUnavailable, TransactionEnded):
                raise
            except Exception as error:  # noqa: BLE001 - what it means is found out in halves
                raise_if_unavailable(error)
            else:
                return BatchResult(batch.until)
        return await self._apply_carefully(batch)

    async def _apply_carefully(self, batch: EventBatch) -> BatchResult:
        poison: list[PoisonEvent] = []
        parked = dict(self.parked)
        async with self._lock.at(batch.after) as locked:
            events = batch.events
            while found := await self._search.apply(locked, events, parked):
                poison.append(found)
                failed = found.recorded
                if found.lacks_schema or self._must_stop(parked):
                    await locked.stop(failed.position - 1, found)
                    return BatchResult(failed.position - 1, tuple(poison), stopped=True)
                await locked.park(found)
                parked[failed.stream] = failed.position
                events = [each for each in events if each.position > failed.position]
            await locked.save(batch.until)
        self.parked = parked
        return BatchResult(batch.until, tuple(poison))

    async def _blame(self, alone: EventBatch, late: SqlCall) -> BatchResult:
        """Stop or park at an event whose function was late too often; it is not called again."""
        poison = overdue_poison(late, self._call_limit)
        stops = self._must_stop(self.parked)
        async with self._lock.at(alone.after) as locked:
            is_resolved = await self._overdue.is_resolved(locked.tx)
            if stops and not is_resolved:
                await locked.stop(alone.after, poison)
            elif not is_resolved:
                await locked.park(poison)
                await locked.save(alone.until)
        self._overdue.forget()
        if is_resolved:
            return await self._attempt(alone)
        if stops:
            return BatchResult(alone.after, (poison,), stopped=True)
        self.parked[late.recorded.stream] = alone.until
        return BatchResult(alone.until, (poison,))

    def _must_stop(self, parked: dict[str, int]) -> bool:
        return (
            self._declaration.on_poison == OnPoison.STOP
            or len(parked) >= self._settings.max_parked_streams
        )

    async def _stop_at_end(self, batch: EventBatch, error: TransactionEnded) -> BatchResult:
        """Stop: what the function has committed is not known, so the checkpoint does not move."""
        poison = poison_of(error.recorded, error)
        async with self._lock.at(batch.after) as locked:
            await locked.stop(batch.after, poison)
        return BatchResult(batch.after, (poison,), stopped=True)

    def _plan(self, events: Sequence[Recorded]) -> Plan:
        return plan(self._declaration, events, self.parked.keys(), self._time_limit)
