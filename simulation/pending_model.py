"""
What the store's statements of all that waits mean in the model: outbox, inbox, dead letters.

See `store`. There are no partitions to make, and the counts are those that a worker needs.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import orjson

from saga_engine.store import (
    backlog_counts,
    crash_suspects,
    dead_letters,
    outbox,
    partitions,
    pending_requests,
    retention,
    stranded_starts,
)
from simulation.memory_database import Answers, Row, Transaction, columns, name_of
from simulation.run_model import UNFINISHED

Arguments = Mapping[str, Any]

ANSWERS = Answers()


# suspects: no code of a simulated saga ends its process


@ANSWERS.to(crash_suspects, "_EVERY", "_AMONG", "_WITH_WORK")
async def _no_suspects(_tx: Transaction, _: Arguments) -> Sequence[Any]:
    return []


# outbox


@ANSWERS.to(outbox, "_ADD")
async def _add(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    names = {
        "run_ids": "run_id",
        "sagas": "saga",
        "versions": "version",
        "steps": "step",
        "directions": "direction",
        "attempts": "attempt",
        "commands": "command",
        "keys": "idempotency_key",
        "payloads": "payload",
        "due": "due_at",
    }
    numbers = []
    for row in columns(names, arguments):
        row |= {"id": tx.number("outbox"), "created_at": tx.now, "claimed_at": None}
        tx.put("outbox", row["id"], row)
        numbers.append((row["id"],))
    return numbers


@ANSWERS.to(outbox, "_DELETE")
async def _delete(tx: Transaction, arguments: Arguments) -> int:
    deleted = 0
    for number in arguments["ids"]:
        if tx.get("outbox", number) is not None and tx.free("outbox", number):
            tx.grab("outbox", number)
            tx.delete("outbox", number)
            deleted += 1
    return deleted


@ANSWERS.to(outbox, "_CLAIM")
async def _claim(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    now, limit = tx.now, arguments["limit"]
    old = [
        row
        for number, row in sorted(tx.every("outbox"))
        if (row["claimed_at"] or row["created_at"]) <= now - arguments["age"]
        and tx.free("outbox", number)
    ]
    names = ("created_at", "run_id", "saga", "version", "step", "direction", "attempt", "command")
    claimed = []
    for row in up_to(old[:limit], "payload", arguments):
        tx.grab("outbox", row["id"])
        tx.put("outbox", row["id"], {**row, "claimed_at": now})
        told = [row[name] for name in (*names, "idempotency_key", "payload", "due_at")]
        claimed.append((row["id"], _awaited(tx, row), *told))
    return claimed


@ANSWERS.to(outbox, "_BACKLOG")
async def _backlog(tx: Transaction, _: Arguments) -> Sequence[Any]:
    times = [row["created_at"] for _, row in tx.every("outbox")]
    return [(len(times), _age(tx, times))]


def _awaited(tx: Transaction, command: Row) -> bool:
    run = tx.get("run", command["run_id"])
    if run is None:
        return True
    step = orjson.loads(run["state"]).get("steps", {}).get(command["step"], {})
    progress = step.get(command["direction"], {})
    wanted = ("in_flight", command["attempt"])
    return (progress.get("status"), progress.get("attempts")) == wanted


# inbox


@ANSWERS.to(pending_requests, "_RECORD")
async def _record(tx: Transaction, arguments: Arguments) -> int:
    names = {
        "run_ids": "run_id",
        "definition_ids": "definition_id",
        "versions": "version",
        "sagas": "saga",
        "kinds": "kind",
        "audit_ids": "audit_id",
        "bodies": "body",
        "reply_to": "reply_to",
        "correlation_ids": "correlation_id",
        "senders": "sender",
        "keys": "key",
        "roles": "role",
        "delays": "delay",
        "fingerprints": "fingerprint",
        "held": "held",
    }
    added = 0
    for row in columns(names, arguments):
        run = tx.get("run", row["run_id"])
        if row["definition_id"] is None and row["kind"] != "start" and run is not None:
            row["definition_id"] = run["definition_id"]
        delay = row.pop("delay")
        if row["kind"] == "start" and row["run_id"] in _starts(tx):
            continue
        row |= {"id": tx.number("inbox"), "received_at": tx.now}
        row["not_before"] = tx.now + delay if delay > timedelta() else None
        tx.put("inbox", row["id"], row)
        added += 1
    return added


@ANSWERS.to(pending_requests, "_TAKE")
async def _take(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    mine = (row for row in _waiting(tx) if row["kind"] != "start" and _is_mine(row, arguments))
    return _taken_out(tx, islice(mine, arguments["limit"]), arguments)


@ANSWERS.to(pending_requests, "_TAKE_STARTS")
async def _take_starts(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    chosen: list[Row] = []
    rows = list(_waiting(tx))
    for saga, places in zip(arguments["sagas"], arguments["limits"], strict=True):
        mine = (row for row in rows if _is_startable(tx, row, saga, arguments))
        chosen += islice(mine, places)
    oldest = sorted(chosen, key=lambda row: row["id"])
    return _taken_out(tx, oldest[: arguments["limit"]], arguments)


@ANSWERS.to(stranded_starts, "_TAKE_UNKNOWN")
async def _take_unknown(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    known = {(row["name"], row["version"], row["fingerprint"]) for _, row in tx.every("definition")}
    old = [
        row
        for row in _waiting(tx)
        if row["kind"] == "start"
        and row["role"] is not None
        and row["fingerprint"] is not None
        and (row["saga"], row["version"], row["fingerprint"]) not in known
        and row["received_at"] < tx.now - arguments["age"]
    ]
    return _taken_out(tx, old[: arguments["limit"]], arguments)


@ANSWERS.to(pending_requests, "_REST")
async def _rest(tx: Transaction, arguments: Arguments) -> int:
    rested = 0
    for number in arguments["ids"]:
        row = await tx.lock("inbox", number)
        if row is not None:
            tx.put("inbox", number, {**row, "not_before": tx.now + arguments["pause"]})
            rested += 1
    return rested


@ANSWERS.to(pending_requests, "_LET_GO")
async def _let_go(tx: Transaction, arguments: Arguments) -> int:
    let_go = 0
    for number, row in list(tx.every("inbox")):
        if row["run_id"] in arguments["run_ids"] and row["kind"] != "start" and row["held"]:
            await tx.lock("inbox", number)
            tx.put("inbox", number, {**row, "held": False})
            let_go += 1
    return let_go


@ANSWERS.to(pending_requests, "_SAGAS_WAITING")
async def _sagas_waiting(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    rows = [row for _, row in tx.every("inbox") if _is_ripe(tx, row)]
    return [
        (saga,)
        for saga in arguments["sagas"]
        if any(_is_startable(tx, row, saga, arguments) for row in rows)
    ]


@ANSWERS.to(pending_requests, "_ANYTHING")
async def _anything(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    rows = (row for _, row in tx.every("inbox") if row["kind"] != "start" and _is_ripe(tx, row))
    others = any(_is_mine(row, arguments) for row in rows)
    return [(others or bool(await _sagas_waiting(tx, arguments)),)]


@ANSWERS.to(pending_requests, "_KNOWN")
async def _known(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    starts = _starts(tx)
    ids = arguments["run_ids"]
    return [(each,) for each in ids if each in starts or tx.get("run", each) is not None]


@ANSWERS.to(pending_requests, "_LOOK_AT_STARTS")
async def _look_at_starts(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    return [
        _fetched(row, arguments)
        for _, row in tx.every("inbox")
        if row["kind"] == "start" and row["run_id"] in arguments["run_ids"]
    ]


@ANSWERS.to(pending_requests, "_KEEP_STARTS")
async def _keep_starts(tx: Transaction, arguments: Arguments) -> Sequence[Any] | int:
    starts = _starts(tx)
    for number in [starts[each] for each in arguments["run_ids"] if each in starts]:
        await tx.lock("inbox", number)
    return _starts_found(tx, arguments)


@ANSWERS.to(pending_requests, "_STARTS_OF")
async def _starts_of(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    return _starts_found(tx, arguments)


def up_to(rows: Iterable[Row], column: str, arguments: Arguments) -> Iterator[Row]:
    """Leave out the rows that come after `most` bytes of a column."""
    before = 0
    for row in rows:
        if before < arguments["most"]:
            yield row
        before += len(row[column].encode())


def _starts_found(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    return [
        (
            *(row["run_id"], row["saga"], row["version"], row["key"]),
            min(_held(tx, row), arguments["held"]),
        )
        for row in [tx.get("inbox", number) for number in _starts(tx).values()]
        if row is not None and row["run_id"] in arguments["run_ids"]
    ]


def _held(tx: Transaction, start: Row) -> int:
    rows = (row for _, row in tx.every("inbox"))
    return sum(row["run_id"] == start["run_id"] and row["held"] for row in rows)


def _starts(tx: Transaction) -> dict[str, int]:
    """The starts that wait, by run id."""
    return {row["run_id"]: number for number, row in tx.every("inbox") if row["kind"] == "start"}


def _waiting(tx: Transaction) -> Iterator[Row]:
    """What may be taken out now, what has waited longest first."""
    for number, row in sorted(tx.every("inbox"), key=_ripe_since):
        if _is_ripe(tx, row) and tx.free("inbox", number):
            yield row


def _taken_out(tx: Transaction, rows: Iterable[Row], arguments: Arguments) -> Sequence[Any]:
    taken = []
    found = list(rows)
    for row in found:
        tx.grab("inbox", row["id"])
    for row in up_to(found, "body", arguments):
        tx.delete("inbox", row["id"])
        taken.append(_fetched(row, arguments))
    return taken


def _fetched(row: Row, arguments: Arguments) -> tuple[Any, ...]:
    """The columns that the real statements return, of a long body only the beginning."""
    names = (
        *("saga", "version", "definition_id", "audit_id", "reply_to", "correlation_id"),
        *("sender", "key", "role", "fingerprint"),
    )
    size = len(row["body"].encode())
    whole = size <= arguments["ours" if row["role"] is None else "others"]
    body = row["body"] if whole else row["body"][: arguments["kept"]]
    others = (row[name] for name in names)
    return (row["id"], row["kind"], row["run_id"], body, size, whole, *others)


def _ripe_since(item: tuple[Any, Row]) -> tuple[datetime, int]:
    number, row = item
    return row["not_before"] or row["received_at"], number


def _is_ripe(tx: Transaction, row: Row) -> bool:
    return row["not_before"] is None or row["not_before"] <= tx.now


def _is_startable(tx: Transaction, row: Row, saga: str, arguments: Arguments) -> bool:
    if row["kind"] != "start" or row["saga"] != saga:
        return False
    if row["version"] is None:
        return row["fingerprint"] is None
    return any(
        each["id"] in arguments["definition_ids"]
        and (each["name"], each["version"]) == (saga, row["version"])
        and row["fingerprint"] in (None, each["fingerprint"])
        for _, each in tx.every("definition")
    )


def _is_mine(row: Row, arguments: Arguments) -> bool:
    ids = arguments["definition_ids"]
    return not row["held"] and (row["definition_id"] is None or row["definition_id"] in ids)


# dead letters


@ANSWERS.to(dead_letters, "_RECORD")
async def _dead_letters(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    names = {name: name for name in arguments if name != "quota"}
    added: list[tuple[int]] = []
    for row in columns(names, arguments):
        number = tx.number("dead_letter")
        tx.put("dead_letter", number, {**row, "id": number, "state": "open"})
        added.append((len(added) + 1,))
    return added


# what the gauges count, and partitions, of which there are none


@ANSWERS.to(backlog_counts, "_UNFINISHED")
async def _unfinished(tx: Transaction, _: Arguments) -> Sequence[Any]:
    groups: dict[tuple[str, str], list[datetime]] = {}
    for _key, row in tx.every("run"):
        if row["status"] in UNFINISHED:
            name = name_of(tx, row["definition_id"])[0]
            groups.setdefault((name, row["status"]), []).append(row["started_at"])
    return [(*group, len(times), _age(tx, times)) for group, times in groups.items()]


@ANSWERS.to(backlog_counts, "_INCIDENTS", "_LETTERS")
async def _none(_tx: Transaction, _: Arguments) -> Sequence[Any]:
    return []


@ANSWERS.to(backlog_counts, "_STARTS_WAITING")
async def _starts_waiting(tx: Transaction, _: Arguments) -> Sequence[Any]:
    starts = Counter(row["saga"] for _, row in tx.every("inbox") if row["kind"] == "start")
    return list(starts.items())


@ANSWERS.to(stranded_starts, "_COUNT")
async def _starts_stranded(tx: Transaction, _: Arguments) -> Sequence[Any]:
    alive = {
        (row["name"], row["version"], row["fingerprint"])
        for _, row in tx.every("definition")
        if row["present_until"] > tx.now
    }
    starts = (row for _, row in tx.every("inbox") if row["kind"] == "start")
    stranded = Counter(
        row["saga"]
        for row in starts
        if row["fingerprint"] is not None
        and (row["saga"], row["version"], row["fingerprint"]) not in alive
    )
    return list(stranded.items())


@ANSWERS.to(backlog_counts, "_TIMERS")
async def _timers(tx: Transaction, _: Arguments) -> Sequence[Any]:
    times = [row["wake_at"] for _, row in tx.every("run") if row["wake_at"] is not None]
    return [(len(times), max(0.0, _age(tx, times)))]


@ANSWERS.to(backlog_counts, "_INBOX")
async def _inbox(tx: Transaction, _: Arguments) -> Sequence[Any]:
    rows = [row for _, row in tx.every("inbox")]
    parked = sum(row["definition_id"] is not None for row in rows)
    return [(len(rows), _age(tx, [row["received_at"] for row in rows]), parked)]


@ANSWERS.to(retention, "_PURGE_OLD")
async def _nothing_is_old(_tx: Transaction, _: Arguments) -> Sequence[Any]:
    return [(0,)]


@ANSWERS.to(backlog_counts, "_UNPARTITIONED")
@ANSWERS.to(partitions, "_MISSING")
async def _missing_partitions(_tx: Transaction, _: Arguments) -> Sequence[Any]:
    return [(0,)]


def _age(tx: Transaction, times: Sequence[datetime]) -> float:
    return (tx.now - min(times)).total_seconds() if times else 0.0
