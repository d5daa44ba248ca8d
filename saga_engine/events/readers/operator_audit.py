"""What operators did with projections, feeds and consumers: the table `operator_action`."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from saga_engine.postgres.statement import Transaction, text

MAX_ACTIONS = 1_000
"""Actions that are kept for each projection and each feed, the newest."""
MAX_RESOLVED = 1_000
"""Resolved failures that are kept for each projection and each feed, the newest."""


class SubjectKind(StrEnum):
    """What operators act on."""

    PROJECTION = "projection"
    FEED = "feed"
    CONSUMER = "consumer"


class Action(StrEnum):
    """What an operator does with a projection or a feed."""

    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"
    SKIP = "skip"
    REBUILD = "rebuild"
    SWITCH = "switch"
    BACK = "back"
    DISCARD = "discard"  # of a projection: a rebuild; of a feed: an event
    REWIND = "rewind"


@dataclass(frozen=True, slots=True)
class Operator:
    """
    Who acts, and why.

    Args:
        name: a person or a program.
        reason: in their words; not empty where an event is left out.
    """

    name: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """
    What an operator acts on.

    Args:
        kind: a projection, a feed or a consumer.
        name: of it.
        version: of the tables of a projection; of a feed None.
        sink: of a feed; of a projection None.
    """

    kind: SubjectKind
    name: str
    version: int | None = None
    sink: str | None = None

    @property
    def key(self) -> dict[str, object]:
        """What its actions are kept for, as parameters of a statement."""
        return {"kind": self.kind.value, "name": self.name, "sink": self.sink}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedAction:
    """
    An action as it is stored.

    Args:
        action: see Action.
        version: of the tables of a projection: those it was about, or that it switched to.
        position: of the event that was retried, skipped or discarded, or to which a feed was
            rewound; of a consumer, the id of the failure.
        acted_at: when.
        operator: a person or a program.
        reason: in their words.
    """

    action: Action
    version: int | None
    position: int | None
    acted_at: datetime
    operator: str
    reason: str


async def record(
    tx: Transaction,
    subject: Subject,
    action: Action,
    operator: Operator,
    position: int | None = None,
) -> None:
    """Record an action in its transaction; the oldest beyond MAX_ACTIONS are removed."""
    parameters = {
        **subject.key,
        "action": action.value,
        "version": subject.version,
        "position": position,
        "operator": operator.name,
        "reason": operator.reason,
    }
    await tx.execute(_RECORD, parameters)
    await tx.execute(_PURGE, {**subject.key, "kept": MAX_ACTIONS})


async def read(
    tx: Transaction, subject: Subject, limit: int, actions: Collection[Action] = tuple(Action)
) -> Sequence[RecordedAction]:
    """Read the newest actions on a projection, of any version, or on a feed; the last one first."""
    parameters = {
        **subject.key,
        "actions": [each.value for each in actions],
        "limit": limit,
    }
    return [
        RecordedAction(
            action=Action(row.action),
            version=row.version,
            position=row.position,
            acted_at=row.acted_at,
            operator=row.operator,
            reason=row.reason,
        )
        for row in await tx.execute(_READ, parameters)
    ]


_RECORD = text(
    """
    INSERT INTO saga_engine.operator_action
        (kind, name, sink, action, version, position, operator, reason)
    VALUES (:kind, :name, :sink, :action, :version, :position, :operator, :reason)"""
)
_PURGE = text(
    """
    DELETE FROM saga_engine.operator_action
    WHERE kind = :kind AND name = :name AND sink IS NOT DISTINCT FROM :sink AND id <= (
        SELECT id FROM saga_engine.operator_action
        WHERE kind = :kind AND name = :name AND sink IS NOT DISTINCT FROM :sink
        ORDER BY id DESC OFFSET :kept LIMIT 1)"""
)
_READ = text(
    """
    SELECT action, version, position, acted_at, operator, reason
    FROM saga_engine.operator_action
    WHERE kind = :kind AND name = :name AND sink IS NOT DISTINCT FROM :sink
        AND action = ANY (CAST(:actions AS text[]))
    ORDER BY id DESC LIMIT :limit"""
)
