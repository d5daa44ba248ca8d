"""
One transaction of a version of a projection: its row is locked, by its owner and at a position.

What is written in it is committed with the checkpoint, or not at all.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy import Table

from saga_engine.events.handlers.poison_event import PoisonEvent
from saga_engine.events.projections import projection_failures, projection_table
from saga_engine.events.projections.projection_table import ProjectionRole, ProjectionState
from saga_engine.events.projections.projection_version import ProjectionVersion
from saga_engine.events.projections.shadow_tables import shadow_copies
from saga_engine.events.readers.owned_loop import NotOwner
from saga_engine.store.database import Database, SqlAlchemyTransaction


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedVersion:
    """
    A version of a projection in a transaction that has locked its row.

    Args:
        tx: the transaction.
        version: whose row is locked.
        owner: this process.
        lease: seconds that saving a position makes it the owner.
        shadows: what is written instead of each of its tables; empty: they are.
    """

    tx: SqlAlchemyTransaction
    version: ProjectionVersion
    owner: str
    lease: float
    shadows: Mapping[Table, Table]

    async def save(self, position: int) -> None:
        """Save the position that it has reached, and renew its lease."""
        await projection_table.save(self.tx, self.version, position, self.owner, self.lease)

    async def park(self, poison: PoisonEvent) -> None:
        """Park the stream of an event that cannot be applied, or let it wait at this event."""
        await projection_failures.record(self.tx, self.version, poison)
        await projection_failures.park(self.tx, self.version, poison.recorded)

    async def stop(self, position: int, poison: PoisonEvent) -> None:
        """Save the position, and stop at an event that cannot be applied."""
        await projection_failures.record(self.tx, self.version, poison)
        await self.save(position)
        active = [ProjectionState.ACTIVE]
        await projection_table.set_state(self.tx, self.version, ProjectionState.STOPPED, active)


class VersionLock:
    """
    Opens the transactions of one version of a projection.

    `copies` are its tables while it is not live.

    Args:
        database: which has the events and the tables.
        version: a version that is stored.
        owner: this process.
        lease: seconds for which it is the owner, from each position that is saved.
    """

    def __init__(
        self, database: Database, version: ProjectionVersion, owner: str, lease: float
    ) -> None:
        self.copies = shadow_copies(version.declaration.tables, version.version)
        self._database = database
        self._version = version
        self._owner = owner
        self._lease = lease

    @asynccontextmanager
    async def at(self, position: int) -> AsyncIterator[LockedVersion]:
        """
        Open a transaction with the row locked, to continue from a position.

        Raises:
            NotOwner: it is at another position, not active, or has another owner.
            StoreError: as Database.transaction.
        """
        async with self._database.transaction() as tx:
            role = await projection_table.lock(tx, self._version, position, self._owner)
            if role is None:
                raise NotOwner
            # A switch locks the row as well, so the names of the tables stay until the commit.
            yield LockedVersion(
                tx=tx,
                version=self._version,
                owner=self._owner,
                lease=self._lease,
                shadows={} if role is ProjectionRole.LIVE else self.copies,
            )
