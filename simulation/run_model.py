"""
What the store's statements of runs mean in the model of PostgreSQL, one function for each.

The Python of the store runs unchanged over them; `waiting` has the rest of its statements. JSON is
kept as text with the keys of its objects in another order than they came, as jsonb does.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from saga_engine.errors import StoreRefused
from saga_engine.store import (
    audit,
    business_keys,
    checked_requests,
    definitions,
    due_runs,
    engine_identity,
    incidents,
    journal,
    runs,
)
from saga_engine.vocabulary import Resolution, Status
from simulation import request_checks
from simulation.memory_database import (
    MemoryTransaction,
    Row,
    StatementHandlers,
    definition_of,
    jsonb,
    row_type,
    unnest,
)

TOKEN_KEY = bytes(32)
"""The same in every simulation, or no two would be alike."""

Arguments = Mapping[str, Any]

HANDLERS = StatementHandlers()
UNFINISHED = (Status.RUNNING.value, Status.COMPENSATING.value)
_Changed = row_type("name version")
_Started = row_type("outcome owner_run_id pinned_version same_input encrypted_digest")
UNENCRYPTED_DIGEST_BYTES = 32
"""Bytes of a digest that is not sealed."""


# identity


@HANDLERS.handles(engine_identity, "_READ")
async def _read_token_key(tx: MemoryTransaction, _: None) -> Sequence[Any]:
    row = tx.get("engine_identity", 1)
    return [] if row is None else [(row["token_key"], None, True)]


@HANDLERS.handles(engine_identity, "_CREATE")
async def _make_token_key(tx: MemoryTransaction, _: Arguments) -> int:
    return int(await tx.insert("engine_identity", 1, {"token_key": TOKEN_KEY}))


# definitions


@HANDLERS.handles(definitions, "_REGISTER")
async def _register(tx: MemoryTransaction, arguments: Arguments) -> int:
    names = {"names": "name", "versions": "version", "fingerprints": "fingerprint"}
    registered = 0
    for row in unnest({**names, "documents": "document"}, arguments):
        key = (row["name"], row["version"], row["fingerprint"])
        seen = {"last_seen": tx.now, "present_until": tx.now + arguments["expire_after"]}
        new = {**row, **seen, "id": tx.next_value("definition")}
        if not await tx.insert("definition", key, new):
            before = await tx.lock("definition", key)
            assert before is not None, "a definition is never deleted"
            tx.put("definition", key, {**before, **seen})
        registered += 1
    return registered


@HANDLERS.handles(definitions, "_REFRESH_PRESENCE")
async def _refresh_definitions(tx: MemoryTransaction, arguments: Arguments) -> int:
    seen, until = 0, tx.now + arguments["expire_after"]
    for key, row in list(tx.scan("definition")):
        old = row["last_seen"] < tx.now - arguments["refresh_after"]
        if row["id"] in arguments["ids"] and old and tx.is_lockable("definition", key):
            tx.lock_unlocked("definition", key)
            tx.put("definition", key, {**row, "last_seen": tx.now, "present_until": until})
            seen += 1
    return seen


@HANDLERS.handles(definitions, "_CONFLICTING")
async def _changed_definition(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    loaded = {
        (name, version): fingerprint for name, version, fingerprint in _definition_keys(arguments)
    }
    pinned = {row["definition_id"] for _, row in tx.scan("run") if row["status"] in UNFINISHED}
    changed = [
        _Changed(row["name"], row["version"])
        for _, row in tx.scan("definition")
        if row["id"] in pinned
        and loaded.get((row["name"], row["version"]), row["fingerprint"]) != row["fingerprint"]
    ]
    return sorted(changed)[:1]


@HANDLERS.handles(definitions, "_READ_ALL")
async def _all_definitions(tx: MemoryTransaction, _: None) -> Sequence[Any]:
    rows = sorted((row for _, row in tx.scan("definition")), key=lambda row: row["id"])
    names = ("id", "name", "version", "fingerprint", "document")
    return [tuple(row[name] for name in names) for row in rows]


@HANDLERS.handles(definitions, "_KNOWN_VERSIONS")
async def _definition_versions(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    found = {(row["name"], row["version"]) for _, row in tx.scan("definition")}
    return sorted(each for each in found if each[0] in arguments["names"])


@HANDLERS.handles(definitions, "_IDS")
async def _definition_ids(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    rows = [tx.get("definition", key) for key in _definition_keys(arguments)]
    return [(row["id"], row["name"], row["version"]) for row in rows if row]


def _definition_keys(arguments: Arguments) -> Iterable[tuple[str, int, str]]:
    names, versions = arguments["names"], arguments["versions"]
    return zip(names, versions, arguments["fingerprints"], strict=True)


# runs


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
        if _start_is_pending(tx, row["run_id"]):
            continue
        if await tx.insert("run", row["run_id"], row):
            inserted.append((row["run_id"],))
    return inserted


def _start_is_pending(tx: MemoryTransaction, run_id: str) -> bool:
    rows = (row for _, row in tx.scan("pending_request"))
    return any(row["kind"] == "start" and row["run_id"] == run_id for row in rows)


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


@HANDLERS.handles(runs, "_READ_STATUSES")
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
    """The runs; of one that comes after `most` bytes, only that it is there."""
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


# journal


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


# keys


@HANDLERS.handles(business_keys, "_TRY_LOCK")
async def _try_lock_keys(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    lockable = [pair for pair in _pairs(arguments) if tx.is_lockable("advisory", pair)]
    for pair in lockable:
        tx.lock_unlocked("advisory", pair)
    return lockable


@HANDLERS.handles(business_keys, "_RESERVE")
async def _reserve_keys(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    names = {"sagas": "saga", "keys": "key", "run_ids": "run_id", "digests": "input_digest"}
    return [
        tuple(row.values())
        for row in unnest(names, arguments)
        if await tx.insert("business_key", (row["saga"], row["key"]), row)
    ]


@HANDLERS.handles(business_keys, "_READ")
async def _key_holders(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    found = [tx.get("business_key", pair) for pair in _pairs(arguments)]
    return [tuple(row.values()) for row in found if row]


@HANDLERS.handles(business_keys, "_RELEASE")
async def _release_key(tx: MemoryTransaction, arguments: Arguments) -> int:
    pair = (arguments["saga"], arguments["key"])
    row, run = tx.get("business_key", pair), tx.get("run", arguments["run_id"])
    if row is None or row["run_id"] != arguments["run_id"]:
        return 0
    if run and (definition_of(tx, run["definition_id"])[0], run["key"]) == pair:
        return 0
    await tx.lock("business_key", pair)
    tx.delete("business_key", pair)
    return 1


@HANDLERS.handles(checked_requests, "_REQUEST_START")
async def _request_start(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    name, run_id, key = arguments["saga"], arguments["run_id"], arguments["key"]
    request_checks.check_start(arguments)
    pinned, fingerprint = _choose_definition(tx, arguments)
    if pinned is None or fingerprint is None:
        outcome = "unknown_saga" if pinned is None else "definition_mismatch"
        return [_Started(outcome, None, pinned, None, None)]
    if key is not None:
        await tx.lock("advisory", (name, key))
        tx.refresh_snapshot()
        row = {
            "saga": name,
            "key": key,
            "run_id": run_id,
            "input_digest": arguments["digest_to_store"],
        }
        if not await tx.insert("business_key", (name, key), row):
            tx.refresh_snapshot()
            holder = tx.get("business_key", (name, key))
            assert holder is not None, "its lock is ours"
            if holder["run_id"] != run_id:
                is_unencrypted = len(holder["input_digest"]) == UNENCRYPTED_DIGEST_BYTES
                matches = (
                    holder["input_digest"] == arguments["input_digest"] if is_unencrypted else None
                )
                encrypted_digest = None if is_unencrypted else holder["input_digest"]
                return [_Started("key_taken", holder["run_id"], pinned, matches, encrypted_digest)]
    if not await tx.insert("start_lock", run_id, {}) or _start_is_pending(tx, run_id):
        raise StoreRefused("That start waits already: pending_request_start_run (23505).")
    tx.delete("start_lock", run_id)
    add_pending_request(
        tx,
        {
            "run_id": run_id,
            "kind": "start",
            "saga": name,
            "version": pinned,
            "key": key,
            "body": arguments["body"],
            "fingerprint": fingerprint,
            "role": "client",
        },
    )
    return [_Started("recorded", run_id, pinned, None, None)]


def _choose_definition(
    tx: MemoryTransaction, arguments: Arguments
) -> tuple[int | None, str | None]:
    """Version and fingerprint; no version: it is not known, no fingerprint: it is another."""
    fingerprint, number = arguments["fingerprint"], arguments["version"]
    rows = [
        row
        for _, row in tx.scan("definition")
        if row["name"] == arguments["saga"] and number in (None, row["version"])
    ]
    live_ids = {row["id"] for row in rows if row["present_until"] > tx.now}
    if not rows:
        known = arguments["must_be_known"] or number is None or fingerprint is None
        return (None, None) if known else (number, fingerprint)

    def preference(row: Row) -> tuple[Any, ...]:
        lives = row["id"] in live_ids
        return lives, lives and row["version"], row["last_seen"], row["version"], row["id"]

    best = max(rows, key=preference)
    if fingerprint in (None, best["fingerprint"]):
        return best["version"], best["fingerprint"]
    matching = [row for row in rows if row["fingerprint"] == fingerprint]
    if not matching or (best["id"] in live_ids and matching[0]["id"] not in live_ids):
        return best["version"], None
    return best["version"], fingerprint


PENDING_REQUEST_DEFAULTS: Row = {
    "run_id": "",
    "kind": "",
    "body": "",
    "saga": None,
    "version": None,
    "definition_id": None,
    "audit_id": None,
    "reply_to": None,
    "correlation_id": None,
    "sender": None,
    "key": None,
    "role": None,
    "fingerprint": None,
    "awaits_start": False,
    "not_before": None,
}
"""The columns of the inbox, with their defaults."""


def add_pending_request(tx: MemoryTransaction, row: Row) -> None:
    """Add a row to the inbox; the columns it does not name have their defaults."""
    number = tx.next_value("pending_request")
    tx.put(
        "pending_request",
        number,
        {**PENDING_REQUEST_DEFAULTS, "id": number, "received_at": tx.now, **row},
    )


# operators


@HANDLERS.handles(audit, "_RECORD")
async def _add_audit_records(tx: MemoryTransaction, arguments: Arguments) -> int:
    names = {"ids": "id", "operators": "operator", "actions": "action", "run_ids": "run_id"}
    rows = list(unnest({**names, "targets": "target", "reasons": "reason"}, arguments))
    request_checks.check_audit_records(rows)
    for row in rows:
        nothing = {"outcome": None, "message": None, "verdicts": 0}
        await tx.insert("audit", row["id"], {**row, **nothing, "role": "operator"})
    return 1


@HANDLERS.handles(audit, "_RECORD_OUTCOMES")
async def record_verdicts(tx: MemoryTransaction, arguments: Arguments) -> int:
    """`verdicts` counts them, also those that come too late to change the row."""
    names = {"ids": "id", "outcomes": "outcome", "messages": "message"}
    for verdict in unnest(names, arguments):
        row = await tx.lock("audit", verdict["id"])
        if row is not None:
            outcome = verdict if row["outcome"] is None else {}
            tx.put("audit", row["id"], {**row, **outcome, "verdicts": row["verdicts"] + 1})
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
            raise StoreRefused("The act of a request is not on record (22023).")
        if not request_checks.matches_audit_record(row["body"], audit_record, kind):
            raise StoreRefused("The act of a request says something else (22023).")
        if audit_record["outcome"] is not None or row["audit_id"] in requested_ids:
            raise StoreRefused("An act has a request already, or is decided (22023).")
        requested_ids.add(row["audit_id"])
        run = tx.get("run", row["run_id"])
        pinned = run["definition_id"] if run else None
        add_pending_request(tx, {**row, "kind": kind, "definition_id": pinned, "role": "operator"})
    return 1


def _pairs(arguments: Arguments) -> Iterable[tuple[str, str]]:
    return zip(arguments["sagas"], arguments["keys"], strict=True)


# incidents


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
