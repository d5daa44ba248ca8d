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
    engine_identity,
    incidents,
    journal,
    runs,
)
from saga_engine.vocabulary import Resolution, Status
from simulation import request_checks
from simulation.memory_database import Answers, Row, Transaction, columns, jsonb, name_of, row_type

TOKEN_KEY = bytes(32)
"""The same in every simulation, or no two would be alike."""

Arguments = Mapping[str, Any]

ANSWERS = Answers()
UNFINISHED = (Status.RUNNING.value, Status.COMPENSATING.value)
_Changed = row_type("name version")
_Started = row_type("outcome holder pinned same sealed")
PLAIN_DIGEST = 32
"""Bytes of a digest that is not sealed."""


# identity


@ANSWERS.to(engine_identity, "_READ")
async def _token_key(tx: Transaction, _: None) -> Sequence[Any]:
    row = tx.get("engine", 1)
    return [] if row is None else [(row["token_key"], None, True)]


@ANSWERS.to(engine_identity, "_MAKE")
async def _make_token_key(tx: Transaction, _: Arguments) -> int:
    return int(await tx.insert("engine", 1, {"token_key": TOKEN_KEY}))


# definitions


@ANSWERS.to(definitions, "_REGISTER")
async def _register(tx: Transaction, arguments: Arguments) -> int:
    names = {"names": "name", "versions": "version", "fingerprints": "fingerprint"}
    made = 0
    for row in columns({**names, "documents": "document"}, arguments):
        key = (row["name"], row["version"], row["fingerprint"])
        seen = {"last_seen": tx.now, "present_until": tx.now + arguments["absent"]}
        new = {**row, **seen, "id": tx.number("definition")}
        if not await tx.insert("definition", key, new):
            before = await tx.lock("definition", key)
            assert before is not None, "a definition is never deleted"
            tx.put("definition", key, {**before, **seen})
        made += 1
    return made


@ANSWERS.to(definitions, "_SEEN")
async def _seen(tx: Transaction, arguments: Arguments) -> int:
    seen, until = 0, tx.now + arguments["absent"]
    for key, row in list(tx.every("definition")):
        old = row["last_seen"] < tx.now - arguments["fresh"]
        if row["id"] in arguments["ids"] and old and tx.free("definition", key):
            tx.grab("definition", key)
            tx.put("definition", key, {**row, "last_seen": tx.now, "present_until": until})
            seen += 1
    return seen


@ANSWERS.to(definitions, "_CHANGED")
async def _changed(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    wanted = {(name, version): mark for name, version, mark in _pinned(arguments)}
    pinned = {row["definition_id"] for _, row in tx.every("run") if row["status"] in UNFINISHED}
    changed = [
        _Changed(row["name"], row["version"])
        for _, row in tx.every("definition")
        if row["id"] in pinned
        and wanted.get((row["name"], row["version"]), row["fingerprint"]) != row["fingerprint"]
    ]
    return sorted(changed)[:1]


@ANSWERS.to(definitions, "_KNOWN")
async def _known(tx: Transaction, _: None) -> Sequence[Any]:
    rows = sorted((row for _, row in tx.every("definition")), key=lambda row: row["id"])
    names = ("id", "name", "version", "fingerprint")
    return [(*(row[name] for name in names), orjson.loads(row["document"])) for row in rows]


@ANSWERS.to(definitions, "_VERSIONS")
async def _versions(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    found = {(row["name"], row["version"]) for _, row in tx.every("definition")}
    return sorted(each for each in found if each[0] in arguments["names"])


@ANSWERS.to(definitions, "_IDS")
async def _ids(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    rows = [tx.get("definition", key) for key in _pinned(arguments)]
    return [(row["id"], row["name"], row["version"]) for row in rows if row]


def _pinned(arguments: Arguments) -> Iterable[tuple[str, int, str]]:
    names, versions = arguments["names"], arguments["versions"]
    return zip(names, versions, arguments["fingerprints"], strict=True)


# runs


@ANSWERS.to(runs, "_CLOCK")
async def _clock(tx: Transaction, _: None) -> Sequence[Any]:
    return [(tx.now,)]


@ANSWERS.to(runs, "_LOOK")
async def _look(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    found = [tx.get("run", run_id) for run_id in arguments["run_ids"]]
    return _up_to(tx, [row for row in found if row], arguments)


@ANSWERS.to(runs, "_LOCK")
async def _lock(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    there = [run_id for run_id in sorted(arguments["run_ids"]) if tx.get("run", run_id)]
    found = [await tx.lock("run", run_id) for run_id in there]
    return _up_to(tx, [row for row in found if row], arguments)


@ANSWERS.to(runs, "_LOCK_FREE")
async def _lock_free(tx: Transaction, arguments: Arguments) -> Sequence[Any] | int:
    free = [run_id for run_id in arguments["run_ids"] if tx.free("run", run_id)]
    return await _lock(tx, {**arguments, "run_ids": free})


@ANSWERS.to(runs, "_LOCK_DUE")
async def _lock_due(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    free = [row for row in _due_runs(tx, arguments) if tx.free("run", row["run_id"])]
    chosen = free[: arguments["limit"]]
    for row in chosen:
        tx.grab("run", row["run_id"])
    return _up_to(tx, chosen, arguments)


@ANSWERS.to(runs, "_DUE")
async def _due(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    return [(row["run_id"],) for row in _due_runs(tx, arguments)[: arguments["limit"]]]


@ANSWERS.to(runs, "_DUE_WITHIN")
async def _due_within(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    horizons = dict(zip(arguments["definition_ids"], arguments["horizons"], strict=True))
    sagas = Counter(
        name_of(tx, row["definition_id"])[0]
        for _, row in tx.every("run")
        if row["wake_at"] is not None
        and row["definition_id"] in horizons
        and row["wake_at"] <= tx.now + horizons[row["definition_id"]]
    )
    return [(saga, min(number, arguments["most"])) for saga, number in sagas.items()]


@ANSWERS.to(runs, "_REST")
async def _rest(tx: Transaction, arguments: Arguments) -> int:
    row = await tx.lock("run", arguments["run_id"])
    if row is None:
        return 0
    tx.put("run", row["run_id"], {**row, "wake_at": tx.now + arguments["pause"]})
    return 1


@ANSWERS.to(runs, "_INSERT")
async def _insert(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    names = {
        "started": "started_at",
        "deadlines": "deadline",
        "definition_ids": "definition_id",
        "keys": "key",
        "inputs": "input",
        **_CHANGING,
    }
    inserted = []
    for row in columns(names, arguments):
        row |= {"input": jsonb(row["input"]), "state": jsonb(row["state"])}
        if _start_waits(tx, row["run_id"]):
            continue
        if await tx.insert("run", row["run_id"], row):
            inserted.append((row["run_id"],))
    return inserted


def _start_waits(tx: Transaction, run_id: str) -> bool:
    rows = (row for _, row in tx.every("inbox"))
    return any(row["kind"] == "start" and row["run_id"] == run_id for row in rows)


@ANSWERS.to(runs, "_SAVE")
async def _save(tx: Transaction, arguments: Arguments) -> int:
    saved = 0
    for new in columns(_CHANGING, arguments):
        old = await tx.lock("run", new["run_id"])
        if old is not None and old["revision"] <= new["revision"]:
            woken = {"wake_at": _wake_at(old["wake_at"], new, tx.now)}
            state = {"state": jsonb(new["state"])}
            tx.put("run", new["run_id"], {**old, **new, **woken, **state})
            saved += 1
    return saved


@ANSWERS.to(runs, "_STATUS")
async def _status(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    told = []
    for run_id in arguments["run_ids"]:
        row = tx.get("run", run_id)
        if row is not None:
            state = orjson.loads(row["state"])
            ends = [orjson.dumps(state.get(name)).decode() for name in ("result", "cause")]
            opened = [
                {"since": each["opened_at"]}
                | {place: each[place] for place in ("number", "step", "direction", "cause")}
                for each in state.get("incidents", {}).values()
            ]
            name, version, _ = name_of(tx, row["definition_id"])
            waits = orjson.dumps(opened).decode()
            told.append((run_id, row["status"], name, version, row["key"], *ends, waits))
    return told


_CHANGING = {
    "run_ids": "run_id",
    "statuses": "status",
    "revisions": "revision",
    "states": "state",
    "finished": "finished_at",
    "wake": "wake_at",
}


def _run(tx: Transaction, row: Row) -> tuple[Any, ...]:
    return (
        *(row["definition_id"], row["wake_at"], row["state"], row["input"], row["status"]),
        *(row["run_id"], *name_of(tx, row["definition_id"]), row["key"], row["started_at"]),
        *(row["deadline"], row["revision"], row["finished_at"]),
    )


def _up_to(tx: Transaction, rows: Sequence[Row], arguments: Arguments) -> Sequence[Any]:
    """The runs; of one that comes after `most` bytes, only that it is there."""
    found, before = [], 0
    for row in rows:
        definition_id, wake_at, state, given, *others = _run(tx, row)
        kept = (state, given) if before < arguments["most"] else (None, None)
        found.append((definition_id, wake_at, *kept, *others))
        before += len(state) + len(given)
    return found


def _due_runs(tx: Transaction, arguments: Arguments) -> list[Row]:
    now, ids = tx.now, arguments["definition_ids"]
    due = [
        row
        for _, row in tx.every("run")
        if row["wake_at"] is not None
        and row["wake_at"] <= now
        and row["definition_id"] in ids
        and row["run_id"] not in arguments["without"]
    ]
    return sorted(due, key=lambda row: row["wake_at"])


def _wake_at(old: datetime | None, new: Row, now: datetime) -> datetime | None:
    wake: datetime | None = new["wake_at"]
    if new["finished_at"] is not None:
        return None
    if old is None or old <= now or (wake is not None and wake < old):
        return wake
    return old


# journal


@ANSWERS.to(journal, "_APPEND")
async def _append(tx: Transaction, arguments: Arguments) -> int:
    names = {
        "run_ids": "run_id",
        "versions": "version",
        "times": "at",
        "types": "type",
        "data": "data",
        "metadata": "metadata",
    }
    added = 0
    for row in columns(names, arguments):
        row |= {"data": jsonb(row["data"]), "position": tx.number("event")}
        await tx.insert_new("event", (row["run_id"], row["version"]), row)
        added += 1
    return added


@ANSWERS.to(journal, "_READ")
async def _read(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    rows = [row for key, row in tx.every("event") if key[0] == arguments["run_id"]]
    names = ("version", "type", "at", "data", "metadata", "position")
    return sorted(tuple(row[name] for name in names) for row in rows)


# keys


@ANSWERS.to(business_keys, "_TRY")
async def _try(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    free = [pair for pair in _pairs(arguments) if tx.free("advisory", pair)]
    for pair in free:
        tx.grab("advisory", pair)
    return free


@ANSWERS.to(business_keys, "_RESERVE")
async def _reserve(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    names = {"sagas": "saga", "keys": "key", "run_ids": "run_id", "digests": "input_digest"}
    return [
        tuple(row.values())
        for row in columns(names, arguments)
        if await tx.insert("run_key", (row["saga"], row["key"]), row)
    ]


@ANSWERS.to(business_keys, "_READ")
async def _holders(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    found = [tx.get("run_key", pair) for pair in _pairs(arguments)]
    return [tuple(row.values()) for row in found if row]


@ANSWERS.to(business_keys, "_RELEASE")
async def _release(tx: Transaction, arguments: Arguments) -> int:
    pair = (arguments["saga"], arguments["key"])
    row, run = tx.get("run_key", pair), tx.get("run", arguments["run_id"])
    if row is None or row["run_id"] != arguments["run_id"]:
        return 0
    if run and (name_of(tx, run["definition_id"])[0], run["key"]) == pair:
        return 0
    await tx.lock("run_key", pair)
    tx.delete("run_key", pair)
    return 1


@ANSWERS.to(checked_requests, "_START")
async def _request_start(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    name, run_id, key = arguments["saga"], arguments["run_id"], arguments["key"]
    request_checks.check_start(arguments)
    pinned, mark = _pin(tx, arguments)
    if pinned is None or mark is None:
        outcome = "unknown_saga" if pinned is None else "mismatch"
        return [_Started(outcome, None, pinned, None, None)]
    if key is not None:
        await tx.lock("advisory", (name, key))
        tx.look_again()
        row = {"saga": name, "key": key, "run_id": run_id, "input_digest": arguments["kept"]}
        if not await tx.insert("run_key", (name, key), row):
            tx.look_again()
            held = tx.get("run_key", (name, key))
            assert held is not None, "its lock is ours"
            if held["run_id"] != run_id:
                plain = len(held["input_digest"]) == PLAIN_DIGEST
                same = held["input_digest"] == arguments["digest"] if plain else None
                sealed = None if plain else held["input_digest"]
                return [_Started("held", held["run_id"], pinned, same, sealed)]
    if not await tx.insert("start", run_id, {}) or _start_waits(tx, run_id):
        raise StoreRefused("That start waits already: inbox_start_run (23505).")
    tx.delete("start", run_id)
    add_to_inbox(
        tx,
        {
            "run_id": run_id,
            "kind": "start",
            "saga": name,
            "version": pinned,
            "key": key,
            "body": arguments["body"],
            "fingerprint": mark,
            "role": "client",
        },
    )
    return [_Started("recorded", run_id, pinned, None, None)]


def _pin(tx: Transaction, arguments: Arguments) -> tuple[int | None, str | None]:
    """Version and fingerprint; no version: it is not known, no fingerprint: it is another."""
    asked, number = arguments["fingerprint"], arguments["version"]
    rows = [
        row
        for _, row in tx.every("definition")
        if row["name"] == arguments["saga"] and number in (None, row["version"])
    ]
    alive = {row["id"] for row in rows if row["present_until"] > tx.now}
    if not rows:
        known = arguments["known"] or number is None or asked is None
        return (None, None) if known else (number, asked)

    def order(row: Row) -> tuple[Any, ...]:
        lives = row["id"] in alive
        return lives, lives and row["version"], row["last_seen"], row["version"], row["id"]

    best = max(rows, key=order)
    if asked in (None, best["fingerprint"]):
        return best["version"], best["fingerprint"]
    mine = [row for row in rows if row["fingerprint"] == asked]
    if not mine or (best["id"] in alive and mine[0]["id"] not in alive):
        return best["version"], None
    return best["version"], asked


INBOX: Row = {
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
    "held": False,
    "not_before": None,
}
"""The columns of the inbox, with their defaults."""


def add_to_inbox(tx: Transaction, row: Row) -> None:
    """Add a row to the inbox; the columns it does not name have their defaults."""
    number = tx.number("inbox")
    tx.put("inbox", number, {**INBOX, "id": number, "received_at": tx.now, **row})


# operators


@ANSWERS.to(audit, "_RECORD")
async def _record_acts(tx: Transaction, arguments: Arguments) -> int:
    names = {"ids": "id", "by": "by", "actions": "action", "run_ids": "run_id"}
    rows = list(columns({**names, "targets": "target", "reasons": "reason"}, arguments))
    request_checks.check_acts(rows)
    for row in rows:
        nothing = {"outcome": None, "message": None, "verdicts": 0}
        await tx.insert("audit", row["id"], {**row, **nothing, "role": "operator"})
    return 1


@ANSWERS.to(audit, "_SETTLE")
async def settle(tx: Transaction, arguments: Arguments) -> int:
    """`verdicts` counts them, also those that come too late to change the row."""
    names = {"ids": "id", "outcomes": "outcome", "messages": "message"}
    for verdict in columns(names, arguments):
        row = await tx.lock("audit", verdict["id"])
        if row is not None:
            settled = verdict if row["outcome"] is None else {}
            tx.put("audit", row["id"], {**row, **settled, "verdicts": row["verdicts"] + 1})
    return 1


@ANSWERS.to(checked_requests, "_CANCEL")
async def _request_cancel(tx: Transaction, arguments: Arguments) -> int:
    return _add_requests(tx, "cancel", ("cancel",), arguments)


@ANSWERS.to(checked_requests, "_RESOLVE")
async def _request_resolve(tx: Transaction, arguments: Arguments) -> int:
    return _add_requests(tx, "resolve", tuple(Resolution), arguments)


def _add_requests(tx: Transaction, kind: str, allowed: Sequence[str], arguments: Arguments) -> int:
    names = {"run_ids": "run_id", "audit_ids": "audit_id", "bodies": "body"}
    rows = list(columns(names, arguments))
    request_checks.check_requests(rows)
    asked = {each["audit_id"] for _, each in tx.every("inbox")}
    for row in rows:
        act = tx.get("audit", row["audit_id"])
        mine = act and act["run_id"] == row["run_id"] and act["role"] == "operator"
        if not act or not mine or act["action"] not in allowed:
            raise StoreRefused("The act of a request is not on record (22023).")
        if not request_checks.says(row["body"], act, kind):
            raise StoreRefused("The act of a request says something else (22023).")
        if act["outcome"] is not None or row["audit_id"] in asked:
            raise StoreRefused("An act has a request already, or is decided (22023).")
        asked.add(row["audit_id"])
        run = tx.get("run", row["run_id"])
        pinned = run["definition_id"] if run else None
        add_to_inbox(tx, {**row, "kind": kind, "definition_id": pinned, "role": "operator"})
    return 1


def _pairs(arguments: Arguments) -> Iterable[tuple[str, str]]:
    return zip(arguments["sagas"], arguments["keys"], strict=True)


# incidents


@ANSWERS.to(incidents, "_OPEN")
async def _open(tx: Transaction, arguments: Arguments) -> int:
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
    for row in columns(names, arguments):
        await tx.insert_new(
            "incident", (row["run_id"], row["number"]), {**row, "resolved_at": None}
        )
        opened += 1
    return opened


@ANSWERS.to(incidents, "_RESOLVE")
async def _resolve(tx: Transaction, arguments: Arguments) -> int:
    names = {
        "run_ids": "run_id",
        "numbers": "number",
        "resolutions": "resolution",
        "by": "by",
        "reasons": "reason",
    }
    resolved = 0
    asked = sorted(columns(names, arguments), key=lambda row: row["number"] is None)
    for row in asked:
        number = row.pop("number")
        for key, incident in list(tx.every("incident")):
            same = key[0] == row["run_id"] and number in (None, key[1])
            if same and incident["resolved_at"] is None:
                await tx.lock("incident", key)
                tx.put("incident", key, {**incident, **row, "resolved_at": tx.now})
                resolved += 1
    return resolved
