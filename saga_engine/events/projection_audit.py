"""Who rebuilt the tables of a projection or switched to others, and why: `projection_action`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from saga_engine.events.projection_actions import Operator
from saga_engine.postgres.statement import Transaction, text

MAX_ACTIONS = 1_000
"""Actions that are kept for each projection, the newest."""


class ProjectionAction(StrEnum):
    """What an operator does with the versions of the tables."""

    REBUILD = "rebuild"
    DISCARD = "discard"
    SWITCH = "switch"
    BACK = "back"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedAction:
    """
    An action as it is stored.

    Args:
        action: see ProjectionAction.
        version: of the tables that were started or discarded, or switched to.
        acted_at: when.
        operator: a person or a program.
        reason: in their words.
    """

    action: ProjectionAction
    version: int
    acted_at: datetime
    operator: str
    reason: str


async def record(
    tx: Transaction, name: str, action: ProjectionAction, version: int, operator: Operator
) -> None:
    """Record an action in its transaction; the oldest beyond MAX_ACTIONS are removed."""
    parameters = {"name": name, "action": action.value, "version": version}
    acting = {"operator": operator.name, "reason": operator.reason}
    await tx.execute(_RECORD, {**parameters, **acting})
    await tx.execute(_PURGE, {"name": name, "kept": MAX_ACTIONS})


async def read(tx: Transaction, name: str, limit: int) -> Sequence[RecordedAction]:
    """Read the newest actions of a projection, the last one first."""
    return [
        RecordedAction(
            action=ProjectionAction(row.action),
            version=row.version,
            acted_at=row.acted_at,
            operator=row.operator,
            reason=row.reason,
        )
        for row in await tx.execute(_READ, {"name": name, "limit": limit})
    ]


_RECORD = text(
    """
    INSERT INTO saga_engine.projection_action (projection, action, version, operator, reason)
    VALUES (:name, :action, :version, :operator, :reason)"""
)
_PURGE = text(
    """
    DELETE FROM saga_engine.projection_action
    WHERE projection = :name AND id <= (
        SELECT id FROM saga_engine.projection_action WHERE projection = :name
        ORDER BY id DESC OFFSET :kept LIMIT 1)"""
)
_READ = text(
    """
    SELECT action, version, acted_at, operator, reason FROM saga_engine.projection_action
    WHERE projection = :name ORDER BY id DESC LIMIT :limit"""
)
