"""
The table `projection`: how far each projection is, and which process runs it.

The checkpoint is the fence. A batch locks the row at the position that it continues from, and saves
the position that it has reached: of two processes that both believe to be the owner, the second one
finds another position, and rolls its batch back. The lease only saves that work.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from saga_engine.errors import NotFound, SchemaMismatch
from saga_engine.events.projection import Projection
from saga_engine.events.projection_key import ProjectionKey
from saga_engine.postgres.statement import Transaction, text


class ProjectionState(StrEnum):
    """What a projection does, as it is stored."""

    ACTIVE = "active"  # it follows the events, while a process runs it
    PAUSED = "paused"  # an operator has paused it
    STOPPED = "stopped"  # an event could not be applied


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredProjection:
    """
    One projection as it is stored.

    Args:
        name: of the projection.
        version: of its declaration.
        state: see ProjectionState.
        position: every event up to it has been applied, skipped, or belongs to a parked stream.
        owner: the process that runs it; None when no lease is in force.
        updated_at: when its row was last changed.
    """

    name: str
    version: int
    state: ProjectionState
    position: int
    owner: str | None
    updated_at: datetime


async def register(tx: Transaction, projections: Sequence[Projection]) -> None:
    """
    Make a row, at position 0, for each projection that has none.

    Raises:
        SchemaMismatch: the tables of a projection were filled by another version of it.
    """
    parameters = {
        "name": [each.name for each in projections],
        "version": [each.version for each in projections],
    }
    for name, stored, declared in await tx.execute(_OTHER_VERSION, parameters):
        raise SchemaMismatch(
            f"Projection {name!r} has version {stored} in the database and version {declared} in"
            f" the code. Run the code of version {stored}, or empty its tables, delete its row of"
            " saga_engine.projection and start again: it is then filled from the first event."
        )
    await tx.execute(_REGISTER, parameters)


async def acquire(
    tx: Transaction, projection: ProjectionKey, owner: str, lease: float
) -> int | None:
    """
    Take or renew the lease of an active projection.

    Args:
        tx: a transaction.
        projection: a registered projection.
        owner: the process.
        lease: seconds that it lasts, on the clock of the database.

    Returns:
        The position to continue from; None when it is not active or another process has it.
    """
    parameters = {**_key(projection), "owner": owner, "lease": lease}
    position: int | None = (await tx.execute(_ACQUIRE, parameters)).scalar()
    return position


async def lock(tx: Transaction, projection: ProjectionKey, position: int) -> bool:
    """Lock the row until the end of the transaction; False if it is not active at *position*."""
    parameters = {**_key(projection), "position": position}
    return (await tx.execute(_LOCK, parameters)).first() is not None


async def save(
    tx: Transaction, projection: ProjectionKey, position: int, owner: str, lease: float
) -> None:
    """Save the position that a locked projection has reached, and renew its lease."""
    parameters = {**_key(projection), "position": position, "owner": owner, "lease": lease}
    await tx.execute(_SAVE, parameters)


async def set_state(
    tx: Transaction,
    projection: ProjectionKey,
    state: ProjectionState,
    expected: Collection[ProjectionState],
) -> bool:
    """Change the state; False, and nothing is changed, unless it is one of *expected*."""
    parameters = {**_key(projection), "state": state.value, "expected": [*map(str, expected)]}
    return (await tx.execute(_SET_STATE, parameters)).rowcount == 1


async def release(tx: Transaction, projections: Sequence[ProjectionKey], owner: str) -> None:
    """End the leases of a process, so that others need not wait for their end."""
    names = [each.name for each in projections]
    await tx.execute(_RELEASE, {"name": names, "owner": owner})


async def progress(tx: Transaction, projection: Projection) -> tuple[int, ProjectionState]:
    """
    Read the position and the state of a projection.

    Raises:
        NotFound: it is not registered.
    """
    row = (await tx.execute(_PROGRESS, _key(projection))).first()
    if row is None:
        raise NotFound(
            f"Projection {projection.name!r}, version {projection.version}, is not in this"
            " database. Run `saga-engine projector MODULE` with its module."
        )
    return row.position, ProjectionState(row.state)


async def read(tx: Transaction, name: str | None = None) -> list[StoredProjection]:
    """Read all projections, or those of one name, by name and version."""
    return [
        StoredProjection(
            name=row.name,
            version=row.version,
            state=ProjectionState(row.state),
            position=row.position,
            owner=row.owner,
            updated_at=row.updated_at,
        )
        for row in await tx.execute(_READ, {"name": name})
    ]


def _key(projection: ProjectionKey) -> dict[str, object]:
    return {"name": projection.name, "version": projection.version}


_OTHER_VERSION = text(
    """
    SELECT d.name, max(p.version), d.version
    FROM unnest(CAST(:name AS text[]), CAST(:version AS integer[])) AS d(name, version)
    JOIN saga_engine.projection AS p ON p.name = d.name
    GROUP BY d.name, d.version HAVING NOT bool_or(p.version = d.version)
    ORDER BY d.name LIMIT 1"""
)
_REGISTER = text(
    """
    INSERT INTO saga_engine.projection (name, version)
    SELECT d.name, d.version
    FROM unnest(CAST(:name AS text[]), CAST(:version AS integer[])) AS d(name, version)
    ORDER BY d.name ON CONFLICT DO NOTHING"""
)
_ACQUIRE = text(
    """
    UPDATE saga_engine.projection
    SET owner = :owner,
        leased_until = clock_timestamp() + make_interval(secs => CAST(:lease AS float8))
    WHERE name = :name AND version = :version AND state = 'active'
        AND (owner IS NULL OR owner = :owner OR leased_until < clock_timestamp())
    RETURNING position"""
)
_LOCK = text(
    """
    SELECT position FROM saga_engine.projection
    WHERE name = :name AND version = :version AND state = 'active' AND position = :position
    FOR UPDATE"""
)
_SAVE = text(
    """
    UPDATE saga_engine.projection
    SET position = :position, owner = :owner, updated_at = clock_timestamp(),
        leased_until = clock_timestamp() + make_interval(secs => CAST(:lease AS float8))
    WHERE name = :name AND version = :version"""
)
_SET_STATE = text(
    """
    UPDATE saga_engine.projection
    SET state = :state, owner = NULL, leased_until = NULL, updated_at = clock_timestamp()
    WHERE name = :name AND version = :version AND state = ANY(CAST(:expected AS text[]))"""
)
_RELEASE = text(
    """
    UPDATE saga_engine.projection SET owner = NULL, leased_until = NULL
    WHERE name = ANY(CAST(:name AS text[])) AND owner = :owner"""
)
_PROGRESS = text(
    "SELECT position, state FROM saga_engine.projection WHERE name = :name AND version = :version"
)
_READ = text(
    """
    SELECT name, version, state, position, updated_at,
        CASE WHEN leased_until >= clock_timestamp() THEN owner END AS owner
    FROM saga_engine.projection
    WHERE CAST(:name AS text) IS NULL OR name = :name ORDER BY name, version"""
)
