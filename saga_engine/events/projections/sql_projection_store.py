"""
The `ProjectionStore` in PostgreSQL: one line for most methods of `interfaces`.

The functions and their statements are in `projection_table`, `projection_failures`, `shadow_tables`
and `event_application`.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from sqlalchemy import Table

from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.event_store.savepoint import savepoint
from saga_engine.events.handlers.poison_event import PoisonEvent
from saga_engine.events.handlers.sql_call import CallLimit
from saga_engine.events.projections import projection_failures, projection_table, shadow_tables
from saga_engine.events.projections.event_application import Step, execute
from saga_engine.events.projections.projection_failures import ParkedStream
from saga_engine.events.projections.projection_table import ProjectionRole, ProjectionState
from saga_engine.events.projections.projection_version import ProjectionVersion
from saga_engine.postgres.statement import text
from saga_engine.store.database import Database, SqlAlchemyTransaction


class SqlProjectionTransaction:
    """
    A ProjectionTransaction over one transaction of PostgreSQL.

    Args:
        tx: the transaction.
        version: whose transaction it is.
        copies: the tables of the version while it is not live.
    """

    def __init__(
        self,
        tx: SqlAlchemyTransaction,
        version: ProjectionVersion,
        copies: Mapping[Table, Table],
    ) -> None:
        self._tx = tx
        self._version = version
        self._copies = copies
        self._shadows: Mapping[Table, Table] = {}

    async def acquire(self, owner: str, lease: float) -> int | None:
        found = await projection_table.acquire(self._tx, self._version, owner, lease)
        if found == 0:  # at its beginning, so its tables may not exist
            await shadow_tables.create_missing(self._tx, self._version, self._copies)
        return found

    async def lock(self, position: int, owner: str) -> bool:
        role = await projection_table.lock(self._tx, self._version, position, owner)
        # A switch locks the row as well, so the names of the tables stay until the commit.
        self._shadows = {} if role is ProjectionRole.LIVE else self._copies
        return role is not None

    async def save(self, position: int, owner: str, lease: float) -> None:
        await projection_table.save(self._tx, self._version, position, owner, lease)

    async def stop(self) -> None:
        active = [ProjectionState.ACTIVE]
        await projection_table.set_state(self._tx, self._version, ProjectionState.STOPPED, active)

    async def execute(self, steps: Sequence[Step], limit: CallLimit) -> None:
        await execute(self._tx, self._version.declaration, steps, self._shadows, limit)

    async def execute_checked(self, steps: Sequence[Step], limit: CallLimit) -> None:
        async with savepoint(self._tx):
            await self.execute(steps, limit)
            await self._tx.execute(_BEGIN_CHECK)
            await self._tx.execute(_CHECK)
            await self._tx.execute(_END_CHECK)

    async def parked_streams(self) -> dict[str, int]:
        return await projection_failures.parked_streams(self._tx, self._version)

    async def retried_streams(self) -> list[ParkedStream]:
        return await projection_failures.retried_streams(self._tx, self._version)

    async def record_failure(self, poison: PoisonEvent) -> None:
        await projection_failures.record(self._tx, self._version, poison)

    async def was_resolved(self, position: int, seconds: float) -> bool:
        return await projection_failures.was_resolved(self._tx, self._version, position, seconds)

    async def park(self, recorded: Recorded) -> None:
        await projection_failures.park(self._tx, self._version, recorded)

    async def advance(self, following: ParkedStream) -> None:
        await projection_failures.advance(self._tx, self._version, following)

    async def unpark(self, stream: str) -> None:
        await projection_failures.unpark(self._tx, self._version, stream)


class SqlProjectionStore:
    """
    A ProjectionStore over the connection pool of one database.

    Args:
        database: which has the events and the tables.
        version: of a projection, as it is stored.
    """

    def __init__(self, database: Database, version: ProjectionVersion) -> None:
        self._database = database
        self._version = version
        self._copies = shadow_tables.shadow_copies(version.declaration.tables, version.version)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqlProjectionTransaction]:
        async with self._database.transaction() as tx:
            yield SqlProjectionTransaction(tx, self._version, self._copies)


_BEGIN_CHECK = text("SAVEPOINT projection_check")
_CHECK = text("SET CONSTRAINTS ALL IMMEDIATE")
_END_CHECK = text("ROLLBACK TO SAVEPOINT projection_check")  # they are deferred again
