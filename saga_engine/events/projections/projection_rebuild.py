"""
Rebuild a projection: another version of its tables, filled from the first event beside the live.

Here is what an operator asks for. A projector that declares the projection makes the tables and
fills them; `projection_switch` then exchanges them for the live ones.
"""

from collections.abc import Collection
from dataclasses import dataclass

from saga_engine.errors import Conflict, NotFound
from saga_engine.events.event_store import positions
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.projections import projection_table, shadow_tables
from saga_engine.events.projections.projection_actions import audited, not_found
from saga_engine.events.projections.projection_table import ProjectionRole, StoredProjection
from saga_engine.events.readers import operator_audit
from saga_engine.events.readers.operator_audit import Action, Operator
from saga_engine.postgres.statement import text
from saga_engine.store.database import SqlAlchemyTransaction


@dataclass(frozen=True, slots=True)
class Rebuild:
    """
    A rebuild, as it was started.

    Args:
        version: of the new tables.
        code_version: of the declaration that fills them.
        from_position: of the first event that exists; earlier ones are missing in the new tables.
    """

    version: int
    code_version: int
    from_position: int


async def begin(
    tx: SqlAlchemyTransaction, name: str, operator: Operator, code_version: int | None = None
) -> Rebuild:
    """
    Begin to rebuild a projection.

    Args:
        tx: a transaction.
        name: of the projection.
        operator: who does it, and why.
        code_version: of the declaration that fills the tables; None: that of the live tables.

    Raises:
        NotFound: there is no such projection.
        Conflict: it is being rebuilt already, or its declaration cannot be rebuilt.
    """
    live = await projection_table.lock_role(tx, name, ProjectionRole.LIVE)
    if live is None:
        raise await not_found(tx, name)
    code_version = code_version or live.code_version
    if live.rebuild_problem and code_version == live.code_version:
        raise Conflict(
            f"Projection {name!r} cannot be rebuilt: {live.rebuild_problem} {shadow_tables.BY_HAND}"
        )
    if other := await projection_table.lock_role(tx, name, ProjectionRole.REBUILD):
        raise Conflict(
            f"Projection {name!r} is being rebuilt as version {other.version}; `saga-engine"
            f" projections list` shows how far it is. To begin again, remove it first: `saga-engine"
            f" projections rebuild {name} --discard`."
        )
    parameters = {"name": name, "code_version": code_version}
    version: int = (await tx.execute(_BEGIN, parameters)).scalar_one()
    await operator_audit.record(tx, audited(name, version), Action.REBUILD, operator)
    log = await EventLog.load(tx)
    return Rebuild(version, code_version, await positions.first(tx, log))


async def discard(tx: SqlAlchemyTransaction, name: str, operator: Operator) -> int:
    """
    Remove a rebuild and its tables.

    Returns:
        Its version.

    Raises:
        NotFound: there is none.
        Conflict: other objects depend on its tables.
    """
    found = await projection_table.lock_role(tx, name, ProjectionRole.REBUILD)
    if found is None:
        raise NotFound(f"Projection {name!r} is not being rebuilt.")
    await remove(tx, found)
    await operator_audit.record(tx, audited(name, found.version), Action.DISCARD, operator)
    return found.version


async def remove(tx: SqlAlchemyTransaction, found: StoredProjection) -> None:
    """
    Remove a version that is not live and is locked, with its tables.

    Raises:
        Conflict: other objects depend on its tables.
    """
    await shadow_tables.drop(tx, found, found.tables)
    await tx.execute(_DELETE, {"name": found.name, "version": found.version})


async def expired(tx: SqlAlchemyTransaction, names: Collection[str], retention: float) -> list[str]:
    """Of these projections, those whose tables were replaced more than *retention* seconds ago."""
    parameters = {"names": [*names], "retention": retention}
    return [*(await tx.execute(_EXPIRED, parameters)).scalars()]


async def remove_expired(tx: SqlAlchemyTransaction, name: str, retention: float) -> int | None:
    """
    Remove the tables of a projection that were replaced more than *retention* seconds ago.

    Returns:
        Their version; None: there are none, or another process has removed them.

    Raises:
        Conflict: other objects depend on them.
    """
    found = await projection_table.lock_role(tx, name, ProjectionRole.PREVIOUS)
    if found is None or not await expired(tx, [name], retention):
        return None
    await remove(tx, found)
    return found.version


# A version that was removed stays in the actions, so that its number is not used again: a process
# that has not noticed yet could fill the tables of the new one.
_BEGIN = text(
    """
    WITH used AS (
        SELECT version FROM saga_engine.projection WHERE name = :name
        UNION ALL
        SELECT version FROM saga_engine.operator_action
        WHERE kind = 'projection' AND name = :name),
    next AS (
        SELECT greatest(max(version) + 1, CAST(:code_version AS integer)) AS version FROM used),
    known AS (
        SELECT table_schema, table_name, rebuild_problem FROM saga_engine.projection
        WHERE name = :name AND code_version = :code_version
        ORDER BY version DESC LIMIT 1)
    INSERT INTO saga_engine.projection (name, version, code_version, role, table_schema, table_name,
        rebuild_problem, has_tables)
    SELECT :name, next.version, CAST(:code_version AS integer), 'rebuild',
        coalesce(known.table_schema, '{}'), coalesce(known.table_name, '{}'),
        known.rebuild_problem, false
    FROM next LEFT JOIN known ON true
    RETURNING version"""
)
_DELETE = text("DELETE FROM saga_engine.projection WHERE name = :name AND version = :version")
_EXPIRED = text(
    """
    SELECT name FROM saga_engine.projection
    WHERE name = ANY(CAST(:names AS text[])) AND role = 'previous'
        AND replaced_at < clock_timestamp() - make_interval(secs => CAST(:retention AS float8))
    ORDER BY name"""
)
