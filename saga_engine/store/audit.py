"""
The audit log: what operators asked for, and the outcome. Rows are added and get one outcome.

An action is recorded in the transaction that requests it, with an id that the caller has chosen. It
gets its outcome in the transaction that decides it; until then its outcome is None.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from saga_engine.postgres.statement import Columns, Transaction, text


class ActionKind(StrEnum):
    """What an operator does; the first five are the resolutions of an incident."""

    RETRY = "retry"
    SKIP = "skip"
    COMPLETE = "complete"
    REJECT = "reject"
    ABANDON = "abandon"
    CANCEL = "cancel"
    RECOVER = "recover"
    ROTATE_TOKEN_KEY = "rotate-token-key"  # noqa: S105 - a name
    REDRIVE = "redrive"
    DISCARD = "discard"
    PURGE = "purge"


class AuditOutcome(StrEnum):
    """Whether an action took effect."""

    ACCEPTED = "accepted"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorAction:
    """An action of an operator on a run, or on another `target`."""

    id: str
    operator: str
    action: ActionKind
    reason: str
    run_id: str | None = None
    target: str | None = None


@dataclass(frozen=True, slots=True)
class ActionOutcome:
    """The outcome of an action, and a sentence for the operator."""

    audit_id: str
    outcome: AuditOutcome
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """
    An action as it is recorded; `outcome` is None until a worker has decided it.

    `operator` is the name that was given, `role` the PostgreSQL role that recorded the action.
    `action` is an `ActionKind`, unless that role recorded another word.
    """

    id: str
    recorded_at: datetime
    operator: str
    action: str
    run_id: str | None
    target: str | None
    reason: str
    outcome: AuditOutcome | None
    message: str | None
    role: str | None = None


async def record(tx: Transaction, actions: Sequence[OperatorAction]) -> None:
    """Record actions, with the role of this session; an action that is recorded is left out."""
    if actions:
        await tx.execute(_RECORD, action_columns(actions))


def action_columns(actions: Sequence[OperatorAction]) -> Columns:
    """Write actions as rows, in order."""
    return {
        "id": [act.id for act in actions],
        "operator": [act.operator for act in actions],
        "action": [act.action for act in actions],
        "run_id": [act.run_id for act in actions],
        "target": [act.target for act in actions],
        "reason": [act.reason for act in actions],
    }


async def record_outcomes(tx: Transaction, outcomes: Sequence[ActionOutcome]) -> None:
    """Record the outcomes of actions. The first outcome of an action stays."""
    if outcomes:
        await tx.execute(_RECORD_OUTCOMES, outcome_columns(outcomes))


def outcome_columns(outcomes: Sequence[ActionOutcome]) -> Columns:
    """Write the first outcome of each action as a row."""
    first = {outcome.audit_id: outcome for outcome in reversed(outcomes)}
    return {
        "id": list(first),
        "outcome": [each.outcome.value for each in first.values()],
        "message": [each.message for each in first.values()],
    }


async def find(tx: Transaction, audit_id: str) -> AuditRecord | None:
    """Read one action; None when it is not recorded."""
    row = (await tx.execute(_FIND, {"id": audit_id})).one_or_none()
    return None if row is None else _audit_record(row)


async def find_decided(tx: Transaction, audit_ids: Sequence[str]) -> list[AuditRecord]:
    """Read those of some actions that have an outcome."""
    return [_audit_record(row) for row in await tx.execute(_FIND_DECIDED, {"ids": list(audit_ids)})]


async def list_for_run(tx: Transaction, run_id: str) -> list[AuditRecord]:
    """Read the actions on a run, in order."""
    return [_audit_record(row) for row in await tx.execute(_LIST_FOR_RUN, {"run_id": run_id})]


def _audit_record(row: Any) -> AuditRecord:
    audit_id, recorded_at, operator, action, run_id, target, reason, outcome, message, role = row
    return AuditRecord(
        id=audit_id,
        recorded_at=recorded_at,
        operator=operator,
        action=action,
        run_id=run_id,
        target=target,
        reason=reason,
        outcome=None if outcome is None else AuditOutcome(outcome),
        message=message,
        role=role,
    )


_SELECT = """
    SELECT id::text, recorded_at, operator, action, run_id::text, target, reason, outcome, message,
        role
    FROM saga_engine.audit"""

_FIND = text(f"{_SELECT} WHERE id = CAST(:id AS uuid)")

_FIND_DECIDED = text(f"{_SELECT} WHERE id = ANY (CAST(:ids AS uuid[])) AND outcome IS NOT NULL")

_LIST_FOR_RUN = text(f"{_SELECT} WHERE run_id = CAST(:run_id AS uuid) ORDER BY recorded_at, id")

_RECORD = text(
    """
    SELECT saga_engine.record_actions(CAST(:id AS uuid[]), CAST(:operator AS text[]),
        CAST(:action AS text[]), CAST(:run_id AS uuid[]), CAST(:target AS text[]),
        CAST(:reason AS text[]))"""
)

# Rows are locked in one order, so that two transactions with the same actions do not deadlock.
_RECORD_OUTCOMES = text(
    """
    WITH locked AS MATERIALIZED (
        SELECT l.id FROM saga_engine.audit AS l
        WHERE l.id = ANY (CAST(:id AS uuid[])) AND l.outcome IS NULL ORDER BY l.id FOR UPDATE)
    UPDATE saga_engine.audit AS a SET outcome = u.outcome, message = u.message
    FROM locked, unnest(CAST(:id AS uuid[]), CAST(:outcome AS text[]), CAST(:message AS text[]))
        AS u(id, outcome, message)
    WHERE a.id = locked.id AND u.id = locked.id AND a.id = ANY (CAST(:id AS uuid[]))"""
)
