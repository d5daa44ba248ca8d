"""
What persons asked for, and what became of it. Rows are added and settled once, never changed.

A request is recorded in the transaction that makes it, with an id that its maker has chosen, and
settled in the transaction that decides it; until then its outcome is None.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from saga_engine.postgres.statement import Transaction, text


@dataclass(frozen=True, slots=True)
class OperatorAction:
    """Somebody does something: `action` in a word, to a run or another `target`."""

    id: str
    operator: str
    action: str
    reason: str
    run_id: str | None = None
    target: str | None = None


@dataclass(frozen=True, slots=True)
class ActionOutcome:
    """What became of an act, and a sentence for whoever did it."""

    audit_id: str
    accepted: bool
    message: str


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """
    An act on record; `outcome` is accepted, refused, or None while it waits for a worker.

    `by` is what its maker said, `role` the role of PostgreSQL that put it on record.
    """

    id: str
    recorded_at: datetime
    operator: str
    action: str
    run_id: str | None
    target: str | None
    reason: str
    outcome: str | None
    message: str | None
    role: str | None = None


async def record(tx: Transaction, actions: Sequence[OperatorAction]) -> None:
    """Put *acts* on record, by the role of this session; one on record already is passed over."""
    if actions:
        await tx.execute(
            _RECORD,
            {
                "ids": [act.id for act in actions],
                "operators": [act.operator for act in actions],
                "actions": [act.action for act in actions],
                "run_ids": [act.run_id for act in actions],
                "targets": [act.target for act in actions],
                "reasons": [act.reason for act in actions],
            },
        )


async def record_outcomes(tx: Transaction, outcomes: Sequence[ActionOutcome]) -> None:
    """Write what became of acts; the first verdict on each stands."""
    if outcomes:
        first = {verdict.audit_id: verdict for verdict in reversed(outcomes)}
        await tx.execute(
            _RECORD_OUTCOMES,
            {
                "ids": list(first),
                "outcomes": [
                    "accepted" if verdict.accepted else "refused" for verdict in first.values()
                ],
                "messages": [verdict.message for verdict in first.values()],
            },
        )


async def find(tx: Transaction, audit_id: str) -> AuditRecord | None:
    """Read one act; None when it is not on record."""
    row = (await tx.execute(_FIND, {"id": audit_id})).one_or_none()
    return None if row is None else _audit_record(row)


async def find_decided(tx: Transaction, audit_ids: Sequence[str]) -> list[AuditRecord]:
    """Read those of some acts that are decided."""
    return [_audit_record(row) for row in await tx.execute(_FIND_DECIDED, {"ids": list(audit_ids)})]


async def list_for_run(tx: Transaction, run_id: str) -> list[AuditRecord]:
    """Read what persons did to a run, in order."""
    return [_audit_record(row) for row in await tx.execute(_LIST_FOR_RUN, {"run_id": run_id})]


def _audit_record(row: Any) -> AuditRecord:
    return AuditRecord(*row)


_SELECT = """
    SELECT id::text, recorded_at, operator, action, run_id::text, target, reason, outcome, message,
        role
    FROM saga_engine.audit"""

_FIND = text(f"{_SELECT} WHERE id = CAST(:id AS uuid)")

_FIND_DECIDED = text(f"{_SELECT} WHERE id = ANY (CAST(:ids AS uuid[])) AND outcome IS NOT NULL")

_LIST_FOR_RUN = text(f"{_SELECT} WHERE run_id = CAST(:run_id AS uuid) ORDER BY recorded_at, id")

_RECORD = text(
    """
    SELECT saga_engine.record_actions(CAST(:ids AS uuid[]), CAST(:operators AS text[]),
        CAST(:actions AS text[]), CAST(:run_ids AS uuid[]), CAST(:targets AS text[]),
        CAST(:reasons AS text[]))"""
)

# Locked in one order, so that two that settle the same acts do not wait for each other.
_RECORD_OUTCOMES = text(
    """
    WITH locked AS MATERIALIZED (
        SELECT l.id FROM saga_engine.audit AS l
        WHERE l.id = ANY (CAST(:ids AS uuid[])) AND l.outcome IS NULL ORDER BY l.id FOR UPDATE)
    UPDATE saga_engine.audit AS a SET outcome = u.outcome, message = u.message
    FROM locked, unnest(CAST(:ids AS uuid[]), CAST(:outcomes AS text[]), CAST(:messages AS text[]))
        AS u(id, outcome, message)
    WHERE a.id = locked.id AND u.id = locked.id AND a.id = ANY (CAST(:ids AS uuid[]))"""
)
