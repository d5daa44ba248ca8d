"""
One transaction of a version of a projection: its row is locked, by its owner and at a position.

What is written in it is committed with the checkpoint, or not at all.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from saga_engine.events.handlers.poison_event import PoisonEvent
from saga_engine.events.projections.interfaces import ProjectionStore, ProjectionTransaction
from saga_engine.events.readers.owned_loop import NotOwner


@dataclass(frozen=True, slots=True)
class LockedVersion:
    """
    A version of a projection in a transaction that has locked its row.

    Args:
        tx: the transaction.
        owner: this process.
        lease: seconds that saving a position makes it the owner.
    """

    tx: ProjectionTransaction
    owner: str
    lease: float

    async def save(self, position: int) -> None:
        """Save the position that it has reached, and renew its lease."""
        await self.tx.save(position, self.owner, self.lease)

    async def park(self, poison: PoisonEvent) -> None:
        """Park the stream of an event that cannot be applied, or let it wait at this event."""
        await self.tx.record_failure(poison)
        await self.tx.park(poison.recorded)

    async def stop(self, position: int, poison: PoisonEvent) -> None:
        """Save the position, and stop at an event that cannot be applied."""
        await self.tx.record_failure(poison)
        await self.save(position)
        await self.tx.stop()


@dataclass(frozen=True, slots=True)
class VersionLock:
    """
    Opens the transactions of one version of a projection.

    Args:
        store: the database.
        owner: this process.
        lease: seconds for which it is the owner, from each position that is saved.
    """

    store: ProjectionStore
    owner: str
    lease: float

    @asynccontextmanager
    async def at(self, position: int) -> AsyncIterator[LockedVersion]:
        """
        Open a transaction with the row locked, to continue from a position.

        Raises:
            NotOwner: it is at another position, not active, or has another owner.
            StoreError: as ProjectionStore.transaction.
        """
        async with self.store.transaction() as tx:
            if not await tx.lock(position, self.owner):
                raise NotOwner
            yield LockedVersion(tx, self.owner, self.lease)
