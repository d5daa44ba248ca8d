"""
The table `projection`: how far each projection is, and which process runs it.

It has a row for each version of the tables of a projection. One of them is live: its tables have
the names of the declaration.

The owner and the checkpoint are the fence. A batch locks the row, as its owner and at the position
that it continues from, and saves the position that it has reached. A process that was stopped for
longer than its lease finds another owner when it goes on, and writes nothing: what it has read may
be out of date even at the same position, such as which streams are parked. It takes the lease again
and reads that again.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from saga_engine.errors import NotFound, SchemaMismatch
from saga_engine.events.event_store.log_page import LogFilter
from saga_engine.events.projections import shadow_tables
from saga_engine.events.projections.projection import Projection
from saga_engine.events.projections.projection_key import ProjectionKey
from saga_engine.events.projections.shadow_tables import TableName
from saga_engine.postgres.statement import Transaction, text


class ProjectionState(StrEnum):
    """What a projection does, as it is stored."""

    ACTIVE = "active"  # it follows the events, while a process runs it
    PAUSED = "paused"  # an operator has paused it
    STOPPED = "stopped"  # an event could not be applied


class ProjectionRole(StrEnum):
    """What one version of the tables of a projection is for."""

    LIVE = "live"  # it has the names of the declaration, and is read
    REBUILD = "rebuild"  # it is filled from the first event, to become the live one
    PREVIOUS = "previous"  # it was the live one, and is kept up to date to become it again


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredProjection:
    """
    One version of the tables of a projection as it is stored.

    Args:
        name: of the projection.
        version: of its tables; each rebuild makes another one.
        code_version: of the declaration that fills them.
        role: see ProjectionRole.
        state: see ProjectionState.
        position: every event up to it has been applied, skipped, or belongs to a parked stream.
        owner: the process that runs it; None when no lease is in force.
        updated_at: when its row was last changed.
        has_tables: whether they exist; a projector makes those of a rebuild.
        tables: their names in the declaration; empty before a process has run that code.
        rebuild_problem: why that code cannot be rebuilt, as a sentence; None: it can.
        missing_until: the last position of the journals that retention has dropped before it has
            read them; None: it has missed nothing.
    """

    name: str
    version: int
    code_version: int
    role: ProjectionRole
    state: ProjectionState
    position: int
    owner: str | None
    updated_at: datetime
    has_tables: bool
    tables: tuple[TableName, ...]
    rebuild_problem: str | None
    missing_until: int | None

    @property
    def key(self) -> str:
        """What identifies it among live ones."""
        return self.name


async def register(tx: Transaction, projections: Sequence[Projection]) -> None:
    """
    Make a row, at position 0, for each projection that has none, and note the tables of each.

    Raises:
        SchemaMismatch: the tables of a projection were filled by another version of its code, or
            it is to be rebuilt and cannot be.
    """
    parameters = {
        "name": [each.name for each in projections],
        "version": [each.version for each in projections],
    }
    other_versions = {row.name: row.version for row in await tx.execute(_OTHER_VERSION, parameters)}
    for each in projections:
        if each.name in other_versions:
            raise SchemaMismatch(_other_version(each, other_versions[each.name]))
    await tx.execute(_REGISTER, parameters)
    reads_runs = [LogFilter(types=[*each.handlers]).reads_runs for each in projections]
    await tx.execute(_NOTE_READS_RUNS, {"name": parameters["name"], "reads_runs": reads_runs})
    for each in projections:
        await _describe(tx, each)


def _other_version(projection: Projection, stored: int) -> str:
    name, declared = projection.name, projection.version
    problem = (
        f"Projection {name!r} has version {stored} in the database and version {declared} in the"
        " code."
    )
    if shadow_tables.rebuild_problem(projection):
        return (
            f"{problem} Run the code of version {stored}, or fill the tables by hand:"
            f" {shadow_tables.BY_HAND}"
        )
    if declared < stored:
        return (
            f"{problem} This code is older: start the code of version {stored}. To return to the"
            f" tables before, while they are kept: `saga-engine projections switch {name} --back`."
        )
    return (
        f"{problem} Run `saga-engine projections rebuild {name} --code-version {declared}`, start"
        f" this again beside the code of version {stored}, and switch when it is ready."
    )


async def _describe(tx: Transaction, projection: Projection) -> None:
    """Store what `rebuild` and `switch` must know of a declaration, which they do not load."""
    problem = shadow_tables.rebuild_problem(projection)
    parameters = {
        "name": projection.name,
        "version": projection.version,
        "schemas": [each.schema for each in projection.tables],
        "tables": [each.name for each in projection.tables],
        "problem": problem,
    }
    await tx.execute(_DESCRIBE, parameters)
    if problem and (await tx.execute(_HAS_REBUILD, parameters)).scalar():
        raise SchemaMismatch(
            f"Projection {projection.name!r} cannot be rebuilt: {problem} Remove its rebuild with"
            f" `saga-engine projections rebuild {projection.name} --discard`."
        )


async def acquire(
    tx: Transaction, projection: ProjectionKey, owner: str, lease: float
) -> int | None:
    """
    Take or renew the lease of an active projection.

    Args:
        tx: a transaction.
        projection: a version that is stored.
        owner: the process.
        lease: seconds that it lasts, on the clock of the database.

    Returns:
        The position to continue from; None when it is not active or another process has it.
    """
    parameters = {**_key(projection), "owner": owner, "lease": lease}
    position: int | None = (await tx.execute(_ACQUIRE, parameters)).scalar()
    return position


async def lock(
    tx: Transaction, projection: ProjectionKey, position: int, owner: str
) -> ProjectionRole | None:
    """
    Lock the row until the end of the transaction.

    Returns:
        None if it is not active at *position*, or *owner* is not the last to have taken its lease.
    """
    parameters = {**_key(projection), "position": position, "owner": owner}
    role = (await tx.execute(_LOCK, parameters)).scalar()
    return None if role is None else ProjectionRole(role)


async def lock_row(tx: Transaction, projection: Projection | StoredProjection) -> None:
    """Lock the row until the end of the transaction, in any state and at any position."""
    await tx.execute(_LOCK_ROW, _key(projection))


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
    Read the position and the state of the live tables of a projection.

    Raises:
        NotFound: it is not registered.
    """
    row = (await tx.execute(_PROGRESS, {"name": projection.name})).first()
    if row is None:
        raise NotFound(
            f"Projection {projection.name!r}, version {projection.version}, is not in this"
            " database. Run `saga-engine projector MODULE` with its module."
        )
    return row.position, ProjectionState(row.state)


async def read(tx: Transaction, name: str | None = None) -> list[StoredProjection]:
    """Read all versions of all projections, or of one, by name and version."""
    return [_stored(row) for row in await tx.execute(_READ, {"name": name})]


async def lock_role(tx: Transaction, name: str, role: ProjectionRole) -> StoredProjection | None:
    """Lock and read the version of a projection that has a role; None if there is none."""
    version = (await tx.execute(_LOCK_ROLE, {"name": name, "role": role.value})).scalar()
    return next((each for each in await read(tx, name) if each.version == version), None)


def _stored(row: Any) -> StoredProjection:
    return StoredProjection(
        name=row.name,
        version=row.version,
        code_version=row.code_version,
        role=ProjectionRole(row.role),
        state=ProjectionState(row.state),
        position=row.position,
        owner=row.owner,
        updated_at=row.updated_at,
        has_tables=row.has_tables,
        tables=tuple(map(TableName, row.table_schema, row.table_name)),
        rebuild_problem=row.rebuild_problem,
        missing_until=row.missing_until,
    )


def _key(projection: ProjectionKey) -> dict[str, object]:
    return {"name": projection.name, "version": projection.version}


_OTHER_VERSION = text(
    """
    SELECT d.name, max(p.code_version) AS version
    FROM unnest(CAST(:name AS text[]), CAST(:version AS integer[])) AS d(name, version)
    JOIN saga_engine.projection AS p ON p.name = d.name
    GROUP BY d.name, d.version HAVING NOT bool_or(p.code_version = d.version)"""
)
_REGISTER = text(
    """
    INSERT INTO saga_engine.projection (name, version, code_version)
    SELECT d.name, d.version, d.version
    FROM unnest(CAST(:name AS text[]), CAST(:version AS integer[])) AS d(name, version)
    WHERE NOT EXISTS (SELECT FROM saga_engine.projection AS p WHERE p.name = d.name)
    ORDER BY d.name ON CONFLICT (name, version) DO NOTHING"""
)
_DESCRIBE = text(
    """
    UPDATE saga_engine.projection
    SET table_schema = CAST(:schemas AS text[]), table_name = CAST(:tables AS text[]),
        rebuild_problem = CAST(:problem AS text)
    WHERE name = :name AND code_version = :version
        AND (table_schema, table_name, rebuild_problem) IS DISTINCT FROM
            (CAST(:schemas AS text[]), CAST(:tables AS text[]), CAST(:problem AS text))"""
)
_HAS_REBUILD = text(
    """
    SELECT true FROM saga_engine.projection
    WHERE name = :name AND role = 'rebuild' AND code_version = :version"""
)

# Retention keeps the journals of runs for those that read them.
_NOTE_READS_RUNS = text(
    """
    UPDATE saga_engine.projection AS p SET reads_runs = d.reads_runs
    FROM unnest(CAST(:name AS text[]), CAST(:reads_runs AS boolean[])) AS d(name, reads_runs)
    WHERE p.name = d.name AND p.reads_runs <> d.reads_runs"""
)

# Functions that name the live tables must not run for others: those have a rebuild_problem.
_ACQUIRE = text(
    """
    UPDATE saga_engine.projection
    SET owner = :owner,
        leased_until = clock_timestamp() + make_interval(secs => CAST(:lease AS float8))
    WHERE name = :name AND version = :version AND state = 'active'
        AND (role = 'live' OR rebuild_problem IS NULL)
        AND (owner IS NULL OR owner = :owner OR leased_until < clock_timestamp())
    RETURNING position"""
)
_LOCK = text(
    """
    SELECT role FROM saga_engine.projection
    WHERE name = :name AND version = :version AND state = 'active' AND position = :position
        AND owner = :owner AND (role = 'live' OR rebuild_problem IS NULL)
    FOR UPDATE"""
)
_LOCK_ROW = text(
    "SELECT FROM saga_engine.projection WHERE name = :name AND version = :version FOR UPDATE"
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
    UPDATE saga_engine.projection SET owner = NULL, leased_until = clock_timestamp()
    WHERE name = ANY(CAST(:name AS text[])) AND owner = :owner"""
)
_PROGRESS = text(
    "SELECT position, state FROM saga_engine.projection WHERE name = :name AND role = 'live'"
)
_READ = text(
    """
    SELECT name, version, code_version, role, state, position, updated_at, has_tables, table_schema,
        table_name, rebuild_problem, missing_until,
        CASE WHEN leased_until >= clock_timestamp() THEN owner END AS owner
    FROM saga_engine.projection
    WHERE CAST(:name AS text) IS NULL OR name = :name ORDER BY name, version"""
)
_LOCK_ROLE = text(
    "SELECT version FROM saga_engine.projection WHERE name = :name AND role = :role FOR UPDATE"
)
