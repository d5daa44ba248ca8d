"""What the statements of operator actions, audit records and incidents mean in the model."""

from collections.abc import Sequence

from saga_engine.errors import StoreRefused
from saga_engine.store import audit, checked_requests, incidents
from saga_engine.vocabulary import Resolution
from simulation import request_checks
from simulation.memory_database import MemoryTransaction, StatementHandlers
from simulation.pending_model import add_pending_request
from simulation.rows import Arguments, unnest

HANDLERS = StatementHandlers()


@HANDLERS.handles(audit, "_RECORD")
async def _add_audit_records(tx: MemoryTransaction, arguments: Arguments) -> int:
    names = {"ids": "id", "operators": "operator", "actions": "action", "run_ids": "run_id"}
    rows = list(unnest({**names, "targets": "target", "reasons": "reason"}, arguments))
    request_checks.check_audit_records(rows)
    for row in rows:
        nothing = {"outcome": None, "message": None, "outcomes": 0}
        await tx.insert("audit", row["id"], {**row, **nothing, "role": "operator"})
    return 1


@HANDLERS.handles(audit, "_RECORD_OUTCOMES")
async def record_outcomes(tx: MemoryTransaction, arguments: Arguments) -> int:
    """Record outcomes; `outcomes` also counts those that no longer change the row."""
    names = {"ids": "id", "outcomes": "outcome", "messages": "message"}
    for outcome in unnest(names, arguments):
        row = await tx.lock("audit", outcome["id"])
        if row is not None:
            changes = outcome if row["outcome"] is None else {}
            tx.put("audit", row["id"], {**row, **changes, "outcomes": row["outcomes"] + 1})
    return 1


@HANDLERS.handles(checked_requests, "_REQUEST_CANCEL")
async def _request_cancel(tx: MemoryTransaction, arguments: Arguments) -> int:
    return _add_requests(tx, "cancel", ("cancel",), arguments)


@HANDLERS.handles(checked_requests, "_REQUEST_RESOLVE")
async def _request_resolve(tx: MemoryTransaction, arguments: Arguments) -> int:
    return _add_requests(tx, "resolve", tuple(Resolution), arguments)


def _add_requests(
    tx: MemoryTransaction, kind: str, allowed: Sequence[str], arguments: Arguments
) -> int:
    names = {"run_ids": "run_id", "audit_ids": "audit_id", "bodies": "body"}
    rows = list(unnest(names, arguments))
    request_checks.check_requests(rows)
    requested_ids = {each["audit_id"] for _, each in tx.scan("pending_request")}
    for row in rows:
        audit_record = tx.get("audit", row["audit_id"])
        is_matching = (
            audit_record
            and audit_record["run_id"] == row["run_id"]
            and audit_record["role"] == "operator"
        )
        if not audit_record or not is_matching or audit_record["action"] not in allowed:
            raise StoreRefused("A request has no audit record (22023).")
        if not request_checks.matches_audit_record(row["body"], audit_record, kind):
            raise StoreRefused("A request does not match its audit record (22023).")
        if audit_record["outcome"] is not None or row["audit_id"] in requested_ids:
            raise StoreRefused("An action already has a request or an outcome (22023).")
        requested_ids.add(row["audit_id"])
        run = tx.get("run", row["run_id"])
        pinned = run["definition_id"] if run else None
        add_pending_request(tx, {**row, "kind": kind, "definition_id": pinned, "role": "operator"})
    return 1


@HANDLERS.handles(incidents, "_OPEN")
async def _open_incidents(tx: MemoryTransaction, arguments: Arguments) -> int:
    names = {
        "run_ids": "run_id",
        "numbers": "number",
        "steps": "step",
        "directions": "direction",
        "causes": "cause",
        "messages": "message",
        "times": "opened_at",
    }
    opened = 0
    for row in unnest(names, arguments):
        await tx.insert_or_fail(
            "incident", (row["run_id"], row["number"]), {**row, "resolved_at": None}
        )
        opened += 1
    return opened


@HANDLERS.handles(incidents, "_RESOLVE")
async def _resolve_incidents(tx: MemoryTransaction, arguments: Arguments) -> int:
    names = {
        "run_ids": "run_id",
        "numbers": "number",
        "resolutions": "resolution",
        "operators": "operator",
        "reasons": "reason",
    }
    resolved = 0
    requests = sorted(unnest(names, arguments), key=lambda row: row["number"] is None)
    for row in requests:
        number = row.pop("number")
        for key, incident in list(tx.scan("incident")):
            matches = key[0] == row["run_id"] and number in (None, key[1])
            if matches and incident["resolved_at"] is None:
                await tx.lock("incident", key)
                tx.put("incident", key, {**incident, **row, "resolved_at": tx.now})
                resolved += 1
    return resolved
