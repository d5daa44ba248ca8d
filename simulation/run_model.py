"""What the statements of runs and of the journal mean in the model."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson

from saga_engine.store import (
    due_runs,
    journal,
    run_statuses,
    runs,
)
from simulation.definition_model import definition_of
from simulation.memory_database import MemoryTransaction, StatementHandlers
from simulation.pending_model import start_is_pending
from simulation.rows import Arguments, Row, jsonb, unnest

HANDLERS = StatementHandlers()


@HANDLERS.handles(runs, "_DATABASE_NOW")
async def _database_now(tx: MemoryTransaction, _: None) -> Sequence[Any]:
    return [(tx.now,)]


@HANDLERS.handles(runs, "_READ_UNLOCKED")
async def _read_runs(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    found = [tx.get("run", run_id) for run_id in arguments["run_ids"]]
    return _limit_bytes(tx, [row for row in found if row], arguments)


@HANDLERS.handles(runs, "_LOCK")
async def _lock(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    there = [run_id for run_id in sorted(arguments["run_ids"]) if tx.get("run", run_id)]
    found = [await tx.lock("run", run_id) for run_id in there]
    return _limit_bytes(tx, [row for row in found if row], arguments)


@HANDLERS.handles(runs, "_LOCK_SKIP_LOCKED")
async def _lock_free(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any] | int:
    free = [run_id for run_id in arguments["run_ids"] if tx.is_lockable("run", run_id)]
    return await _lock(tx, {**arguments, "run_ids": free})


@HANDLERS.handles(due_runs, "_LOCK_DUE")
async def _lock_due(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    free = [row for row in _due_runs(tx, arguments) if tx.is_lockable("run", row["run_id"])]
    chosen = free[: arguments["limit"]]
    for row in chosen:
        tx.lock_unlocked("run", row["run_id"])
    return _limit_bytes(tx, chosen, arguments)


@HANDLERS.handles(due_runs, "_DUE_RUN_IDS")
async def _due(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    return [(row["run_id"],) for row in _due_runs(tx, arguments)[: arguments["limit"]]]


@HANDLERS.handles(due_runs, "_DUE_WITHIN")
async def _due_within(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    horizons = dict(zip(arguments["definition_ids"], arguments["horizons"], strict=True))
    sagas = Counter(
        definition_of(tx, row["definition_id"])[0]
        for _, row in tx.scan("run")
        if row["wake_at"] is not None
        and row["definition_id"] in horizons
        and row["wake_at"] <= tx.now + horizons[row["definition_id"]]
    )
    return [(saga, min(number, arguments["count_limit"])) for saga, number in sagas.items()]


@HANDLERS.handles(due_runs, "_DEFER_WAKE")
async def _defer_run(tx: MemoryTransaction, arguments: Arguments) -> int:
    row = await tx.lock("run", arguments["run_id"])
    if row is None:
        return 0
    tx.put("run", row["run_id"], {**row, "wake_at": tx.now + arguments["delay"]})
    return 1


@HANDLERS.handles(runs, "_INSERT")
async def _insert_runs(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    names = {
        "started": "started_at",
        "deadlines": "deadline",
        "definition_ids": "definition_id",
        "keys": "key",
        "inputs": "input",
        **_UPDATED_COLUMNS,
    }
    inserted = []
    for row in unnest(names, arguments):
        row |= {"input": jsonb(row["input"]), "state": jsonb(row["state"])}
        if start_is_pending(tx, row["run_id"]):
            continue
        if await tx.insert("run", row["run_id"], row):
            inserted.append((row["run_id"],))
    return inserted


@HANDLERS.handles(runs, "_SAVE")
async def _save_runs(tx: MemoryTransaction, arguments: Arguments) -> int:
    saved = 0
    for new in unnest(_UPDATED_COLUMNS, arguments):
        old = await tx.lock("run", new["run_id"])
        if old is not None and old["revision"] <= new["revision"]:
            woken = {"wake_at": _next_wake_at(old["wake_at"], new, tx.now)}
            state = {"state": jsonb(new["state"])}
            tx.put("run", new["run_id"], {**old, **new, **woken, **state})
            saved += 1
    return saved


@HANDLERS.handles(run_statuses, "_READ")
async def _run_statuses(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    rows = []
    for run_id in arguments["run_ids"]:
        row = tx.get("run", run_id)
        if row is not None:
            state = orjson.loads(row["state"])
            ends = [
                orjson.dumps(state.get(name)).decode() for name in ("result", "compensation_cause")
            ]
            open_incidents = [
                {"since": each["opened_at"]}
                | {field: each[field] for field in ("number", "step", "direction", "cause")}
                for each in state.get("incidents", {}).values()
            ]
            name, version, _ = definition_of(tx, row["definition_id"])
            incidents_json = orjson.dumps(open_incidents).decode()
            rows.append((run_id, row["status"], name, version, row["key"], *ends, incidents_json))
    return rows


_UPDATED_COLUMNS = {
    "run_ids": "run_id",
    "statuses": "status",
    "revisions": "revision",
    "states": "state",
    "finished": "finished_at",
    "wake": "wake_at",
}


def _run_columns(tx: MemoryTransaction, row: Row) -> tuple[Any, ...]:
    return (
        *(row["definition_id"], row["wake_at"], row["state"], row["input"], row["status"]),
        *(row["run_id"], *definition_of(tx, row["definition_id"]), row["key"], row["started_at"]),
        *(row["deadline"], row["revision"], row["finished_at"]),
    )


def _limit_bytes(tx: MemoryTransaction, rows: Sequence[Row], arguments: Arguments) -> Sequence[Any]:
    """The runs; after `max_bytes` bytes without their state and input."""
    found, before = [], 0
    for row in rows:
        definition_id, wake_at, state, input_json, *others = _run_columns(tx, row)
        kept = (state, input_json) if before < arguments["max_bytes"] else (None, None)
        found.append((definition_id, wake_at, *kept, *others))
        before += len(state) + len(input_json)
    return found


def _due_runs(tx: MemoryTransaction, arguments: Arguments) -> list[Row]:
    now, ids = tx.now, arguments["definition_ids"]
    due = [
        row
        for _, row in tx.scan("run")
        if row["wake_at"] is not None
        and row["wake_at"] <= now
        and row["definition_id"] in ids
        and row["run_id"] not in arguments["excluding"]
    ]
    return sorted(due, key=lambda row: row["wake_at"])


def _next_wake_at(old: datetime | None, new: Row, now: datetime) -> datetime | None:
    wake: datetime | None = new["wake_at"]
    if new["finished_at"] is not None:
        return None
    if old is None or old <= now or (wake is not None and wake < old):
        return wake
    return old


@HANDLERS.handles(journal, "_APPEND")
async def _append_events(tx: MemoryTransaction, arguments: Arguments) -> int:
    names = {
        "run_ids": "run_id",
        "revisions": "revision",
        "times": "recorded_at",
        "types": "type",
        "data": "data",
        "metadata": "metadata",
    }
    added = 0
    for row in unnest(names, arguments):
        row |= {"data": jsonb(row["data"]), "position": tx.next_value("event")}
        await tx.insert_or_fail("event", (row["run_id"], row["revision"]), row)
        added += 1
    return added


@HANDLERS.handles(journal, "_READ")
async def _read_events(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    rows = [row for key, row in tx.scan("event") if key[0] == arguments["run_id"]]
    names = ("revision", "type", "recorded_at", "data", "metadata", "position")
    return sorted(tuple(row[name] for name in names) for row in rows)
