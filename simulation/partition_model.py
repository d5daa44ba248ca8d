"""
What the statements of monthly partitions mean in the model.

Time is shortened. A month is one second of run ids; it ends when ids of that second are too old to
be accepted (`MAX_RUN_ID_AGE`). Runs are retained for `RETENTION`; the settings are ignored. So
partitions are dropped within a simulation whose run ids are a week old.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from saga_engine.store import partitions
from simulation.definition_model import definition_of
from simulation.memory_database import MemoryTransaction, StatementHandlers
from simulation.operator_model import record_outcomes
from simulation.rows import UNFINISHED, Arguments, Row

HANDLERS = StatementHandlers()

MAX_RUN_ID_AGE = timedelta(days=7)
"""The default of `max_run_id_age_days`."""

RETENTION = timedelta(seconds=30)
"""How long a finished run is retained."""

DETACHED, DROPPED = "detached", "dropped"
"""The tables of detached partitions, and of dropped ones, which only the checks read."""

PARTITIONED_TABLES = ("run", "event")

REFUSED_RUN_DROPPED = "The run was finished, and was dropped with its month."


def month_of_run(run_id: str) -> str:
    """The month of a run id."""
    return str((UUID(run_id).int >> 80) // 1000)


@HANDLERS.handles(partitions, "_CUTOFF")
async def _cutoff(tx: MemoryTransaction, _: Arguments) -> Sequence[Any]:
    return [(tx.now - RETENTION,)]


@HANDLERS.handles(partitions, "_EXPIRED_MONTHS")
async def _expired_months(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    months = {month_of_run(run_id) for run_id, _ in tx.scan("run")}
    return [(month,) for month in sorted(months) if _month_end(month) < arguments["cutoff"]]


def _month_end(month: str) -> datetime:
    return datetime.fromtimestamp(int(month) + 1, UTC) + MAX_RUN_ID_AGE


@HANDLERS.handles(partitions, "_MONTH_NEEDED")
async def _month_needed(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    return [(month_needed(tx, arguments["month"], arguments["cutoff"]),)]


def month_needed(tx: MemoryTransaction, month: str, cutoff: datetime) -> bool:
    """Whether a month has an unfinished run or a pending start, as the SQL function."""
    rows = (row for run_id, row in tx.scan("run") if month_of_run(run_id) == month)
    if any(row["status"] in UNFINISHED or _ended_after(row, cutoff) for row in rows):
        return True
    starts = (row for _, row in tx.scan("pending_request") if row["kind"] == "start")
    return any(month_of_run(row["run_id"]) == month for row in starts)


def _ended_after(row: Row, cutoff: datetime) -> bool:
    return row["finished_at"] is not None and row["finished_at"] > cutoff


@HANDLERS.handles(partitions, "_SUMMARIZE")
async def _summarize(_tx: MemoryTransaction, _: Arguments) -> Sequence[Any]:
    return [(None,)]  # One call summarizes everything.


@HANDLERS.handles_template(partitions, "_RELEASE_KEYS")
async def _release(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    mine = [row for run_id, row in tx.scan("run") if month_of_run(run_id) == arguments["month"]]
    later = sorted((row["run_id"], row) for row in mine if row["run_id"] > arguments["after"])
    page = later[: arguments["page"]]
    for run_id, row in page:
        pair = (definition_of(tx, row["definition_id"])[0], row["key"])
        held = await tx.lock("business_key", pair)
        finished = row["finished_at"] is not None and not _ended_after(row, arguments["cutoff"])
        if held is not None and held["run_id"] == run_id and finished:
            tx.delete("business_key", pair)
    return [(page[-1][0],)] if page else []


@HANDLERS.handles(partitions, "_SET_LOCK_TIMEOUT")
async def _set_lock_timeout(_tx: MemoryTransaction, _: Arguments) -> Sequence[Any]:
    return [("",)]


@HANDLERS.handles(partitions, "_DETACH_MONTH")
async def _detach(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    await tx.lock_table("run")
    tx.refresh_snapshot()
    month = arguments["month"]
    if month_needed(tx, month, arguments["cutoff"]):
        return [(0,)]
    _move(tx, "", DETACHED, month)
    return [(1,)]


@HANDLERS.handles(partitions, "_DETACHED_MONTHS")
async def _detached_months(tx: MemoryTransaction, _: Arguments) -> Sequence[Any]:
    return [(month,) for month in sorted({month_of_run(key) for key, _ in tx.scan("detached run")})]


@HANDLERS.handles(partitions, "_DELETE_INCIDENTS")
async def _delete_incidents(tx: MemoryTransaction, arguments: Arguments) -> int:
    keys = [key for key, _ in tx.scan("incident") if month_of_run(key[0]) == arguments["month"]]
    old = [key for key in keys if tx.get("run", key[0]) is None][: arguments["page"]]
    for key in old:
        await tx.lock("incident", key)
        tx.delete("incident", key)
    return len(old)


@HANDLERS.handles(partitions, "_DELETE_REQUESTS")
async def _delete_requests(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    rows = [
        row
        for _, row in tx.scan("pending_request")
        if month_of_run(row["run_id"]) == arguments["month"]
    ]
    old = [
        row["id"]
        for row in rows
        if is_orphaned(tx, row) and tx.is_lockable("pending_request", row["id"])
    ]
    audit_ids = []
    for number in old[: arguments["page"]]:
        tx.lock_unlocked("pending_request", number)
        audit_ids.append((row := tx.get("pending_request", number)) and row["audit_id"])
        tx.delete("pending_request", number)
    outcomes = {
        "id": audit_ids,
        "outcome": ["refused"] * len(audit_ids),
        "message": [REFUSED_RUN_DROPPED] * len(audit_ids),
    }
    await record_outcomes(tx, outcomes)
    return [(audit_id,) for audit_id in audit_ids]


def is_orphaned(tx: MemoryTransaction, row: Row) -> bool:
    """Whether the run of a request was dropped and has no pending start."""
    run_id = row["run_id"]
    starts = {each["run_id"] for _, each in tx.scan("pending_request") if each["kind"] == "start"}
    return run_id not in starts and tx.get("run", run_id) is None


@HANDLERS.handles_template(partitions, "_DROP_MONTH")
async def _drop(tx: MemoryTransaction, arguments: Arguments) -> int:
    _move(tx, DETACHED, DROPPED, arguments["month"])
    return 0


def _move(tx: MemoryTransaction, source: str, target: str, month: str) -> None:
    for table in PARTITIONED_TABLES:
        source_table = f"{source} {table}".strip()
        for key, row in list(tx.scan(source_table)):
            if month_of_run(row["run_id"]) == month:
                tx.delete(source_table, key)
                tx.put(f"{target} {table}", key, row)
