"""
Finding the event that cannot be applied: in halves under savepoints, until it is alone.

The events before it are applied.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.handlers.poison_event import PoisonEvent, poison_of
from saga_engine.events.handlers.sql_call import (
    CallLimit,
    TransactionEnded,
    raise_if_unavailable,
)
from saga_engine.events.projections.event_application import plan
from saga_engine.events.projections.locked_version import LockedVersion
from saga_engine.events.projections.projection import Projection
from saga_engine.payload.guard import CallTimeLimit


@dataclass(frozen=True, slots=True)
class PoisonSearch:
    """
    Applies events of a projection up to the first that cannot be applied.

    Args:
        declaration: whose functions are called.
        time_limit: interrupts calls of pure functions.
        call_limit: how long each async function may take.
    """

    declaration: Projection
    time_limit: CallTimeLimit
    call_limit: CallLimit

    async def apply(
        self, locked: LockedVersion, events: Sequence[Recorded], parked: dict[str, int]
    ) -> PoisonEvent | None:
        """
        Apply events in a transaction, up to the first that cannot be applied, and return that one.

        Raises:
            TransactionEnded: a function has ended the transaction.
            StoreUnavailable: the database, a lock or another transaction is to blame.
        """
        for each in events:
            each.forget_data()  # the functions may have been given them before
        planned = plan(self.declaration, events, parked.keys(), self.time_limit)
        try:
            await locked.tx.execute_checked(planned.steps, self.call_limit)
        except Exception as error:
            if isinstance(error, TransactionEnded):
                raise
            raise_if_unavailable(error)
            first_half = planned.events[: len(planned.events) // 2]
            if not first_half:
                return await self._apply_one(locked, planned.events[0], error)
            rest = planned.events[len(first_half) :]
            return (
                await self.apply(locked, first_half, parked)
                or await self.apply(locked, rest, parked)
                or planned.poison
            )
        return planned.poison

    async def _apply_one(
        self, locked: LockedVersion, event: Recorded, folded_error: Exception
    ) -> PoisonEvent | None:
        """
        Apply an event whose folded changes were refused: one after the other, as they were given.

        Folded changes are written in another order, which a constraint between rows may refuse.
        """
        if self.declaration.handlers[event.type].is_sql:
            return poison_of(event, folded_error)
        event.forget_data()
        planned = plan(self.declaration, [event], set(), self.time_limit, fold=False)
        try:
            await locked.tx.execute_checked(planned.steps, self.call_limit)
        except Exception as error:  # noqa: BLE001 - it is the event's, or raised below
            raise_if_unavailable(error)
            return poison_of(event, error)
        return planned.poison
