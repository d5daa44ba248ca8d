"""
One batch of a projection: its effects and its checkpoint, in one transaction.

If PostgreSQL refuses a batch, or an async function fails, the batch is applied again in halves
under savepoints, until the event that cannot be applied is alone. The events before it are
committed. Then the projection stops, or parks the stream of that event and goes on. A missing table
or column is the fault of no event, and always stops it.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from sqlalchemy import Table

from saga_engine.errors import StoreUnavailable
from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.event_store.savepoint import savepoint
from saga_engine.events.projections import projection_failures, projection_table, shadow_tables
from saga_engine.events.projections.event_application import (
    CallLimit,
    Plan,
    SqlCall,
    SqlHandlerError,
    TransactionEnded,
    execute,
    overdue_poison,
    plan,
    poison_of,
)
from saga_engine.events.projections.event_batch import BatchResult, EventBatch, StreamRetry
from saga_engine.events.projections.projection import OnPoison
from saga_engine.events.projections.projection_failures import ParkedStream, PoisonEvent
from saga_engine.events.projections.projection_table import ProjectionRole, ProjectionState
from saga_engine.events.projections.projection_version import ProjectionVersion
from saga_engine.events.projections.shadow_tables import shadow_copies
from saga_engine.events.readers.owned_loop import NotOwner
from saga_engine.payload.guard import CallTimeLimit
from saga_engine.postgres.sqlalchemy_errors import is_of_the_server, translate_error
from saga_engine.postgres.statement import text
from saga_engine.settings import Settings
from saga_engine.store.database import Database, SqlAlchemyTransaction


class BatchApplier:
    """
    Applies the batches of one version of a projection.

    Args:
        database: which has the events and the tables.
        projection: a version that is stored.
        owner: this process.
        settings: the lease, and how many streams may be parked.
        time_limit: interrupts calls of pure functions.
    """

    def __init__(
        self,
        database: Database,
        projection: ProjectionVersion,
        owner: str,
        settings: Settings,
        time_limit: CallTimeLimit,
    ) -> None:
        self.parked: dict[str, int] = {}
        self._copies = shadow_copies(projection.declaration.tables, projection.version)
        self._shadows: Mapping[Table, Table] = {}
        self._database = database
        self._projection = projection
        self._declaration = projection.declaration
        self._owner = owner
        self._settings = settings
        self._time_limit = time_limit
        # A function that does not return leaves time to find its event.
        self._call_limit = CallLimit(settings.database_transaction_timeout / 2)
        self._overdue_at = 0  # the position of the last event whose function did not return

    async def acquire(self) -> int | None:
        """
        Take or renew the lease, and read which streams are parked.

        Returns:
            The position to continue from; None when the projection is not active or another
            process has it.
        """
        async with self._database.transaction() as tx:
            lease = self._settings.projection_lease
            found = await projection_table.acquire(tx, self._projection, self._owner, lease)
            if found == 0:  # at its beginning, so its tables may not exist
                await shadow_tables.create_missing(tx, self._projection, self._copies)
            self.parked = await projection_failures.parked_streams(tx, self._projection)
        return found

    async def apply(self, batch: EventBatch) -> BatchResult:
        """
        Apply a batch and save its checkpoint.

        Raises:
            NotOwner: nothing was written; acquire the lease again.
            StoreUnavailable: whether the batch was committed is unknown; acquire the lease again.
        """
        self._call_limit.forget()
        try:
            return await self._apply(batch)
        except TransactionEnded as error:
            return await self._stop_at_end(batch, error)
        except StoreUnavailable:
            if self._call_limit.overdue is None:
                raise
            return await self._apply_overdue(batch, self._call_limit.overdue)

    async def _apply(self, batch: EventBatch) -> BatchResult:
        planned = self._plan(batch.events)
        if planned.poison is None:
            try:
                async with self._locked(batch.after) as tx:
                    await self._execute(tx, planned)
                    await self._save(tx, batch.until)
            except (NotOwner, StoreUnavailable, TransactionEnded):
                raise
            except Exception as error:  # noqa: BLE001 - what it means is found out in halves
                _raise_if_unavailable(error)
            else:
                return BatchResult(batch.until)
        return await self._apply_carefully(batch)

    async def retried_streams(self) -> list[ParkedStream]:
        """Read which parked streams an operator wants to be retried, the first request first."""
        async with self._database.transaction() as tx:
            return await projection_failures.retried_streams(tx, self._projection)

    async def retry_stream(self, retry: StreamRetry) -> BatchResult:
        """
        Apply events of a parked stream, unless an operator has skipped one since they were read.

        Raises:
            NotOwner, StoreUnavailable: as `apply`.
        """
        self._call_limit.forget()
        try:
            return await self._apply_parked(retry)
        except TransactionEnded as error:
            return await self._park_again(retry, poison_of(error.recorded, error))
        except StoreUnavailable:
            if self._call_limit.overdue is None:
                raise
            return await self._retry_overdue(retry, self._call_limit.overdue)

    async def _park_again(self, retry: StreamRetry, poison: PoisonEvent) -> BatchResult:
        async with self._locked(retry.checkpoint) as tx:
            await self._park(tx, poison)
        self.parked[poison.recorded.stream] = poison.recorded.position
        return BatchResult(retry.checkpoint, (poison,))

    async def _retry_overdue(self, retry: StreamRetry, call: SqlCall) -> BatchResult:
        """Apply the events before one whose function took the time of the transaction, or park."""
        failed = call.recorded
        before = [each for each in retry.events if each.position < failed.position]
        if not before:
            return await self._park_again(retry, overdue_poison(call, self._call_limit))
        following = replace(
            retry.parked, next_position=failed.position, next_version=failed.version
        )
        return await self.retry_stream(
            StreamRetry(retry.checkpoint, retry.parked, before, following)
        )

    async def _apply_parked(self, retry: StreamRetry) -> BatchResult:
        poison: PoisonEvent | None = None
        async with self._locked(retry.checkpoint) as tx:
            parked = await projection_failures.parked_streams(tx, self._projection)
            if parked.get(retry.parked.stream) == retry.parked.next_position:
                del parked[retry.parked.stream]
                poison = await self._apply_halves(tx, retry.events, parked)
                if poison:
                    await self._park(tx, poison)
                    parked[poison.recorded.stream] = poison.recorded.position
                elif retry.following:
                    await projection_failures.advance(tx, self._projection, retry.following)
                    parked[retry.parked.stream] = retry.following.next_position
                else:
                    await projection_failures.unpark(tx, self._projection, retry.parked.stream)
                await self._save(tx, retry.checkpoint)
        self.parked = parked
        return BatchResult(retry.checkpoint, (poison,) if poison else ())

    async def _apply_carefully(self, batch: EventBatch) -> BatchResult:
        poison: list[PoisonEvent] = []
        parked = dict(self.parked)
        async with self._locked(batch.after) as tx:
            events = batch.events
            while found := await self._apply_halves(tx, events, parked):
                poison.append(found)
                failed = found.recorded
                if found.lacks_schema or self._must_stop(parked):
                    return await self._stop(tx, failed.position - 1, poison)
                await self._park(tx, found)
                parked[failed.stream] = failed.position
                events = [each for each in events if each.position > failed.position]
            await self._save(tx, batch.until)
        self.parked = parked
        return BatchResult(batch.until, tuple(poison))

    async def _apply_overdue(self, batch: EventBatch, call: SqlCall) -> BatchResult:
        """
        Go on up to an event whose function took the time of the transaction.

        It may block the event loop, or wait in one statement. It is blamed when it is late again.
        """
        failed = call.recorded
        for each in batch.events:
            each.forget_data()
        before = [each for each in batch.events if each.position < failed.position]
        if before:
            return await self.apply(EventBatch(batch.after, failed.position - 1, before))
        if self._overdue_at != failed.position:
            self._overdue_at = failed.position
            return await self.apply(EventBatch(batch.after, failed.position, [failed]))
        poison = overdue_poison(call, self._call_limit)
        async with self._locked(batch.after) as tx:
            if self._must_stop(self.parked):
                return await self._stop(tx, failed.position - 1, [poison])
            await self._park(tx, poison)
            await self._save(tx, failed.position)
        self.parked[failed.stream] = failed.position
        return BatchResult(failed.position, (poison,))

    def _must_stop(self, parked: dict[str, int]) -> bool:
        return (
            self._declaration.on_poison == OnPoison.STOP
            or len(parked) >= self._settings.max_parked_streams
        )

    async def _stop(
        self, tx: SqlAlchemyTransaction, position: int, poison: list[PoisonEvent]
    ) -> BatchResult:
        await projection_failures.record(tx, self._projection, poison[-1])
        await self._save(tx, position)
        active = [ProjectionState.ACTIVE]
        await projection_table.set_state(tx, self._projection, ProjectionState.STOPPED, active)
        return BatchResult(position, tuple(poison), stopped=True)

    async def _stop_at_end(self, batch: EventBatch, error: TransactionEnded) -> BatchResult:
        """Stop: what the function has committed is not known, so the checkpoint does not move."""
        async with self._locked(batch.after) as tx:
            return await self._stop(tx, batch.after, [poison_of(error.recorded, error)])

    async def _park(self, tx: SqlAlchemyTransaction, poison: PoisonEvent) -> None:
        await projection_failures.record(tx, self._projection, poison)
        await projection_failures.park(tx, self._projection, poison.recorded)

    async def _apply_halves(
        self, tx: SqlAlchemyTransaction, events: Sequence[Recorded], parked: dict[str, int]
    ) -> PoisonEvent | None:
        """Apply events up to the first that cannot be applied, and return that one."""
        for each in events:
            each.forget_data()  # the functions may have been given them before
        planned = self._plan(events, parked)
        try:
            await self._execute_checked(tx, planned)
        except Exception as error:
            if isinstance(error, TransactionEnded):
                raise
            _raise_if_unavailable(error)
            first_half = planned.events[: len(planned.events) // 2]
            if not first_half:
                return await self._apply_one(tx, planned.events[0], error)
            rest = planned.events[len(first_half) :]
            return (
                await self._apply_halves(tx, first_half, parked)
                or await self._apply_halves(tx, rest, parked)
                or planned.poison
            )
        return planned.poison

    async def _apply_one(
        self, tx: SqlAlchemyTransaction, event: Recorded, folded_error: Exception
    ) -> PoisonEvent | None:
        """
        Apply an event whose folded changes were refused: one after the other, as they were given.

        Folded changes are written in another order, which a constraint between rows may refuse.
        """
        if self._declaration.handlers[event.type].is_sql:
            return poison_of(event, folded_error)
        event.forget_data()
        planned = plan(self._declaration, [event], set(), self._time_limit, fold=False)
        try:
            await self._execute_checked(tx, planned)
        except Exception as error:  # noqa: BLE001 - it is the event's, or raised below
            _raise_if_unavailable(error)
            return poison_of(event, error)
        return planned.poison

    async def _execute_checked(self, tx: SqlAlchemyTransaction, planned: Plan) -> None:
        """
        Execute a plan under a savepoint, and check what its constraints leave to the commit.

        Each event has to satisfy them: it can be alone in its transaction.
        """
        async with savepoint(tx):
            await self._execute(tx, planned)
            await tx.execute(_BEGIN_CHECK)
            await tx.execute(_CHECK)
            await tx.execute(_END_CHECK)

    async def _execute(self, tx: SqlAlchemyTransaction, planned: Plan) -> None:
        steps = planned.steps
        await execute(tx, self._declaration, steps, self._shadows, self._call_limit)

    def _plan(self, events: Sequence[Recorded], parked: dict[str, int] | None = None) -> Plan:
        waiting = self.parked if parked is None else parked
        return plan(self._declaration, events, waiting.keys(), self._time_limit)

    @asynccontextmanager
    async def _locked(self, position: int) -> AsyncIterator[SqlAlchemyTransaction]:
        async with self._database.transaction() as tx:
            role = await projection_table.lock(tx, self._projection, position, self._owner)
            if role is None:
                raise NotOwner
            # A switch locks the row as well, so the names of the tables stay until the commit.
            self._shadows = {} if role is ProjectionRole.LIVE else self._copies
            yield tx

    async def _save(self, tx: SqlAlchemyTransaction, position: int) -> None:
        lease = self._settings.projection_lease
        await projection_table.save(tx, self._projection, position, self._owner, lease)


def _raise_if_unavailable(error: Exception) -> None:
    """
    Raise an error that says nothing about the events: the database, a lock, another transaction.

    Raises:
        StoreUnavailable: the batch can be tried again.
    """
    cause = error.__cause__ if isinstance(error, SqlHandlerError) and error.__cause__ else error
    if isinstance(cause, StoreUnavailable):
        raise cause
    if isinstance(error, SqlHandlerError) and not is_of_the_server(cause):
        return
    translated = translate_error(cause, "the database")
    if isinstance(translated, StoreUnavailable):
        raise translated from None


_BEGIN_CHECK = text("SAVEPOINT projection_check")
_CHECK = text("SET CONSTRAINTS ALL IMMEDIATE")
_END_CHECK = text("ROLLBACK TO SAVEPOINT projection_check")  # they are deferred again
