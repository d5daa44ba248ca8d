"""
What an operator does with a projection: pause, resume, retry, skip.

Who did it and why is recorded. An action only changes what is stored: the process that runs the
projection, or the next one, goes on from there.
"""

from saga_engine.errors import Conflict, NotFound
from saga_engine.events.event_store.arguments import MAX_POSITION, require_number
from saga_engine.events.projections import projection_table
from saga_engine.events.projections.projection_failures import Resolution
from saga_engine.events.projections.projection_table import (
    ProjectionRole,
    ProjectionState,
    StoredProjection,
)
from saga_engine.events.readers import operator_audit
from saga_engine.events.readers.operator_audit import (
    MAX_RESOLVED,
    Action,
    Operator,
    Subject,
    SubjectKind,
)
from saga_engine.nearest_name import did_you_mean
from saga_engine.postgres.statement import Transaction, text


async def pause(tx: Transaction, name: str, operator: Operator, version: int | None = None) -> None:
    """
    Pause an active projection; its process stops before the next batch.

    *version* is that of its tables, here and below; None: the live ones.

    Raises:
        NotFound: there is no such projection.
        Conflict: it is not active.
    """
    found = await find(tx, name, version)
    await _change(tx, found, ProjectionState.ACTIVE, ProjectionState.PAUSED, "paused")
    await operator_audit.record(tx, audited(name, found.version), Action.PAUSE, operator)


async def resume(
    tx: Transaction, name: str, operator: Operator, version: int | None = None
) -> None:
    """
    Let a paused projection continue from its checkpoint.

    Raises:
        NotFound: there is no such projection.
        Conflict: it is not paused.
    """
    found = await find(tx, name, version)
    await _change(tx, found, ProjectionState.PAUSED, ProjectionState.ACTIVE, "resumed")
    await operator_audit.record(tx, audited(name, found.version), Action.RESUME, operator)


async def retry(tx: Transaction, name: str, operator: Operator, version: int | None = None) -> int:
    """
    Try all events again that could not be applied: of a stopped projection, of parked streams.

    Returns:
        How many failures are tried again.

    Raises:
        NotFound: there is no such projection.
        Conflict: nothing of it has failed.
    """
    found = await find(tx, name, version)
    await projection_table.lock_row(tx, found)  # first, as a batch does: no deadlock
    failures = await resolve_failures(tx, found, operator)
    stopped = [ProjectionState.STOPPED]
    was_stopped = await projection_table.set_state(tx, found, ProjectionState.ACTIVE, stopped)
    requested = (await tx.execute(_REQUEST_RETRY, _key(found))).rowcount
    if not failures and not was_stopped and requested:
        raise Conflict(
            f"The {requested} parked streams of projection {name!r} are already being retried, by"
            " the projector that runs it."
        )
    if not failures and not was_stopped:
        raise Conflict(f"Projection {name!r} is {found.state}; no event of it has failed.")
    await operator_audit.record(tx, audited(name, found.version), Action.RETRY, operator)
    return failures


async def resolve_failures(tx: Transaction, found: StoredProjection, operator: Operator) -> int:
    """Resolve all open failures of a locked version as retried, and return their number."""
    parameters = {**_key(found), **_resolution(Resolution.RETRIED, operator)}
    failures = (await tx.execute(_RESOLVE_ALL, parameters)).rowcount
    await tx.execute(_PURGE, {**_key(found), "kept": MAX_RESOLVED})
    return failures


async def skip(
    tx: Transaction, name: str, position: int, operator: Operator, version: int | None = None
) -> None:
    """
    Go on without an event that could not be applied.

    Args:
        tx: a transaction.
        name: the projection.
        position: of the event, as its failure has it.
        operator: with a reason.
        version: of its tables; None: the live ones.

    Raises:
        NotFound: there is no such projection, or no event at that position has failed.
        Conflict: there is no reason, or events before it have not been applied.
        InvalidInput: it is not a position.
    """
    if not operator.reason.strip():
        raise Conflict("A skipped event is missing in the tables. Give the reason to skip it.")
    require_number(position, "The position of the event", MAX_POSITION)
    found = await find(tx, name, version)
    await projection_table.lock_row(tx, found)
    parameters = {**_key(found), "position": position}
    resolution = _resolution(Resolution.SKIPPED, operator)
    row = (await tx.execute(_RESOLVE_ONE, {**parameters, **resolution})).first()
    if row is None:
        raise NotFound(f"Projection {name!r} has no failure at position {position}.")
    in_stream = await tx.execute(_SKIP_IN_STREAM, {**parameters, "stream": row.stream})
    if not in_stream.rowcount and not (await tx.execute(_SKIP_CHECKPOINT, parameters)).rowcount:
        raise Conflict(
            f"Events before position {position} have not been applied: the checkpoint is"
            f" {found.position}. Correct the projection, and retry."
        )
    await tx.execute(_PURGE, {**_key(found), "kept": MAX_RESOLVED})
    subject = audited(name, found.version)
    await operator_audit.record(tx, subject, Action.SKIP, operator, position)


def audited(name: str, version: int | None = None) -> Subject:
    """Return a projection as the subject of actions."""
    return Subject(SubjectKind.PROJECTION, name, version)


async def _change(
    tx: Transaction,
    found: StoredProjection,
    expected: ProjectionState,
    state: ProjectionState,
    done: str,
) -> None:
    if not await projection_table.set_state(tx, found, state, [expected]):
        is_late = found.state is expected
        problem = "was changed at the same time" if is_late else f"is {found.state}"
        raise Conflict(
            f"Projection {found.name!r} {problem}. It can be {done} while it is {expected}."
        )


async def find(tx: Transaction, name: str, version: int | None = None) -> StoredProjection:
    """
    Find one version of the tables of a projection; None: the live one.

    Raises:
        NotFound: there is no such projection, or no such version of it.
    """
    found = await projection_table.read(tx, name)
    if not found:
        raise await not_found(tx, name)
    for each in found:
        if each.version == version or (version is None and each.role is ProjectionRole.LIVE):
            return each
    versions = ", ".join(str(each.version) for each in found)
    raise NotFound(f"Projection {name!r} has no version {version}; it has {versions}.")


def _key(projection: StoredProjection) -> dict[str, object]:
    return {"name": projection.name, "version": projection.version}


def _resolution(resolution: Resolution, operator: Operator) -> dict[str, object]:
    return {"resolution": resolution.value, "actor": operator.name, "reason": operator.reason}


_RESOLVE_ALL = text(
    """
    UPDATE saga_engine.projection_failure
    SET resolution = :resolution, resolved_at = clock_timestamp(), resolved_by = :actor,
        reason = :reason
    WHERE projection = :name AND projection_version = :version AND resolution IS NULL"""
)
_RESOLVE_ONE = text(
    """
    UPDATE saga_engine.projection_failure
    SET resolution = :resolution, resolved_at = clock_timestamp(), resolved_by = :actor,
        reason = :reason
    WHERE projection = :name AND projection_version = :version AND position = :position
        AND resolution IS NULL
    RETURNING stream"""
)
_REQUEST_RETRY = text(
    """
    UPDATE saga_engine.parked_stream SET retry_requested_at = clock_timestamp()
    WHERE projection = :name AND projection_version = :version"""
)
_SKIP_IN_STREAM = text(
    """
    UPDATE saga_engine.parked_stream
    SET next_position = :position + 1, retry_requested_at = clock_timestamp()
    WHERE projection = :name AND projection_version = :version AND stream = :stream
        AND next_position = :position"""
)
_SKIP_CHECKPOINT = text(
    """
    UPDATE saga_engine.projection
    SET position = :position, state = 'active', owner = NULL, leased_until = NULL,
        updated_at = clock_timestamp()
    WHERE name = :name AND version = :version AND state = 'stopped' AND position = :position - 1"""
)
_PURGE = text(
    """
    DELETE FROM saga_engine.projection_failure
    WHERE (projection, projection_version, position) IN (
        SELECT projection, projection_version, position FROM saga_engine.projection_failure
        WHERE projection = :name AND projection_version = :version AND resolution IS NOT NULL
        ORDER BY resolved_at DESC OFFSET :kept)"""
)


async def not_found(tx: Transaction, name: str) -> NotFound:
    """Make the error for a projection that the database does not have."""
    names = {each.name for each in await projection_table.read(tx)}
    return NotFound(
        f"There is no projection {name!r}.{did_you_mean(name, names)} `saga-engine projections"
        " list` shows those that were registered."
    )
