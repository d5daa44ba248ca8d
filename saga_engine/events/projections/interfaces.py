"""
The database as a projection uses it.

    ProjectionStore          opens transactions of one version of a projection
    ProjectionTransaction    one transaction: its row, what it writes, and the events that failed

`sql_projection_store` is that in PostgreSQL. The simulation has another in memory; the tests in
tests/simulation/test_event_model.py run on both.

Every method may raise StoreUnavailable (try again), StoreRefused (a retry would fail too) or
SchemaMismatch; see `errors`.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.handlers.poison_event import PoisonEvent
from saga_engine.events.handlers.sql_call import CallLimit
from saga_engine.events.projections.event_application import Step
from saga_engine.events.projections.projection_failures import ParkedStream


class ProjectionTransaction(Protocol):
    """One transaction of one version of a projection, at READ COMMITTED."""

    async def acquire(self, owner: str, lease: float) -> int | None:
        """Take or renew the lease, and return the checkpoint; None: another process has it."""

    async def lock(self, position: int, owner: str) -> bool:
        """Lock the row; False unless it is active at *position*, and *owner* has it."""

    async def save(self, position: int, owner: str, lease: float) -> None:
        """Save the checkpoint of a locked row, and renew its lease."""

    async def stop(self) -> None:
        """Stop the projection, whose row is locked."""

    async def execute(self, steps: Sequence[Step], limit: CallLimit) -> None:
        """Write the changes and call the async functions of a plan, when the row is locked."""

    async def execute_checked(self, steps: Sequence[Step], limit: CallLimit) -> None:
        """
        Execute a plan under a savepoint, which is undone if it fails.

        What its constraints leave to the commit is checked: each event has to satisfy them, because
        it can be alone in its transaction.
        """

    async def parked_streams(self) -> dict[str, int]:
        """Return the parked streams, and the position of the next event of each."""

    async def retried_streams(self) -> list[ParkedStream]:
        """Return the parked streams whose retry was requested, the first request first."""

    async def record_failure(self, poison: PoisonEvent) -> None:
        """Record that an event could not be applied; again, if it failed before."""

    async def was_resolved(self, position: int, seconds: float) -> bool:
        """Whether an operator has resolved the failure at a position in the last *seconds*."""

    async def park(self, recorded: Recorded) -> None:
        """Park the stream of an event, or move on in it: the event is the next one to apply."""

    async def advance(self, following: ParkedStream) -> None:
        """Move on in a parked stream, to its next position and version."""

    async def unpark(self, stream: str) -> None:
        """Remove a stream whose events have all been applied."""


class ProjectionStore(Protocol):
    """Opens transactions of one version of a projection."""

    def transaction(self) -> AbstractAsyncContextManager[ProjectionTransaction]:
        """
        Open a transaction: committed at the end of the block, rolled back if it raises.

        Raises:
            StoreUnavailable: also if whether it was committed is unknown.
        """
