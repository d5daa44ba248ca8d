"""What the statements of pending requests and stranded starts mean in the model."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from saga_engine.store import pending_requests, request_queue, stranded_starts
from simulation.memory_database import MemoryTransaction, StatementHandlers
from simulation.outbox_model import limit_bytes
from simulation.rows import Arguments, Row, unnest

HANDLERS = StatementHandlers()


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
"""The columns of a pending request with their defaults."""


def add_pending_request(tx: MemoryTransaction, row: Row) -> None:
    """Add a pending request; missing columns have their defaults."""
    number = tx.next_value("pending_request")
    tx.put(
        "pending_request",
        number,
        {**PENDING_REQUEST_DEFAULTS, "id": number, "received_at": tx.now, **row},
    )


@HANDLERS.handles(pending_requests, "_RECORD")
async def _add_pending_requests(tx: MemoryTransaction, arguments: Arguments) -> int:
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
        "awaits_start": "awaits_start",
    }
    added = 0
    for row in unnest(names, arguments):
        run = tx.get("run", row["run_id"])
        if row["definition_id"] is None and row["kind"] != "start" and run is not None:
            row["definition_id"] = run["definition_id"]
        delay = row.pop("delay")
        if row["kind"] == "start" and row["run_id"] in _pending_start_ids(tx):
            continue
        row |= {"id": tx.next_value("pending_request"), "received_at": tx.now}
        row["not_before"] = tx.now + delay if delay > timedelta() else None
        tx.put("pending_request", row["id"], row)
        added += 1
    return added


@HANDLERS.handles(request_queue, "_TAKE")
async def _take_requests(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    eligible = (
        row
        for row in _takeable(tx)
        if row["kind"] != "start" and _is_for_loaded_definition(row, arguments)
    )
    return _delete_returning(tx, islice(eligible, arguments["limit"]), arguments)


@HANDLERS.handles(request_queue, "_TAKE_STARTS")
async def _take_starts(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    selected: list[Row] = []
    rows = list(_takeable(tx))
    for saga, limit in zip(arguments["sagas"], arguments["slots"], strict=True):
        eligible = (row for row in rows if _is_startable(tx, row, saga, arguments))
        selected += islice(eligible, limit)
    oldest = sorted(selected, key=lambda row: row["id"])
    return _delete_returning(tx, oldest[: arguments["limit"]], arguments)


@HANDLERS.handles(stranded_starts, "_TAKE_WITHOUT_DEFINITION")
async def _take_unknown(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    known = {(row["name"], row["version"], row["fingerprint"]) for _, row in tx.scan("definition")}
    old = [
        row
        for row in _takeable(tx)
        if row["kind"] == "start"
        and row["role"] is not None
        and row["fingerprint"] is not None
        and (row["saga"], row["version"], row["fingerprint"]) not in known
        and row["received_at"] < tx.now - arguments["age"]
    ]
    return _delete_returning(tx, old[: arguments["limit"]], arguments)


@HANDLERS.handles(request_queue, "_DEFER")
async def _defer_requests(tx: MemoryTransaction, arguments: Arguments) -> int:
    deferred = 0
    for number in arguments["ids"]:
        row = await tx.lock("pending_request", number)
        if row is not None:
            tx.put("pending_request", number, {**row, "not_before": tx.now + arguments["delay"]})
            deferred += 1
    return deferred


@HANDLERS.handles(request_queue, "_UNBLOCK_REQUESTS")
async def _release_held(tx: MemoryTransaction, arguments: Arguments) -> int:
    released = 0
    for number, row in list(tx.scan("pending_request")):
        if row["run_id"] in arguments["run_ids"] and row["kind"] != "start" and row["awaits_start"]:
            await tx.lock("pending_request", number)
            tx.put("pending_request", number, {**row, "awaits_start": False})
            released += 1
    return released


@HANDLERS.handles(request_queue, "_SAGAS_WITH_STARTS")
async def _sagas_with_pending_starts(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    rows = [row for _, row in tx.scan("pending_request") if _is_due(tx, row)]
    return [
        (saga,)
        for saga in arguments["sagas"]
        if any(_is_startable(tx, row, saga, arguments) for row in rows)
    ]


@HANDLERS.handles(request_queue, "_HAS_WORK")
async def _anything_pending(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    rows = (
        row for _, row in tx.scan("pending_request") if row["kind"] != "start" and _is_due(tx, row)
    )
    has_request = any(_is_for_loaded_definition(row, arguments) for row in rows)
    return [(has_request or bool(await _sagas_with_pending_starts(tx, arguments)),)]


@HANDLERS.handles(pending_requests, "_EXISTING_RUNS")
async def _existing_runs(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    starts = _pending_start_ids(tx)
    ids = arguments["run_ids"]
    return [(each,) for each in ids if each in starts or tx.get("run", each) is not None]


@HANDLERS.handles(pending_requests, "_READ_STARTS")
async def _read_starts(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    return [
        _returned_columns(row, arguments)
        for _, row in tx.scan("pending_request")
        if row["kind"] == "start" and row["run_id"] in arguments["run_ids"]
    ]


@HANDLERS.handles(pending_requests, "_FIND_AND_LOCK_STARTS")
async def _lock_starts(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any] | int:
    starts = _pending_start_ids(tx)
    for number in [starts[each] for each in arguments["run_ids"] if each in starts]:
        await tx.lock("pending_request", number)
    return _start_rows(tx, arguments)


@HANDLERS.handles(pending_requests, "_FIND_STARTS")
async def _read_pending_starts(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    return _start_rows(tx, arguments)


def _start_rows(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    return [
        (
            *(row["run_id"], row["saga"], row["version"], row["key"]),
            min(_count_held(tx, row), arguments["count_limit"]),
        )
        for row in [tx.get("pending_request", number) for number in _pending_start_ids(tx).values()]
        if row is not None and row["run_id"] in arguments["run_ids"]
    ]


def _count_held(tx: MemoryTransaction, start: Row) -> int:
    rows = (row for _, row in tx.scan("pending_request"))
    return sum(row["run_id"] == start["run_id"] and row["awaits_start"] for row in rows)


def _pending_start_ids(tx: MemoryTransaction) -> dict[str, int]:
    """The pending starts by run id."""
    return {
        row["run_id"]: number
        for number, row in tx.scan("pending_request")
        if row["kind"] == "start"
    }


def _takeable(tx: MemoryTransaction) -> Iterator[Row]:
    """Requests that can be taken now, the longest due first."""
    for number, row in sorted(tx.scan("pending_request"), key=_due_since):
        if _is_due(tx, row) and tx.is_lockable("pending_request", number):
            yield row


def _delete_returning(
    tx: MemoryTransaction, rows: Iterable[Row], arguments: Arguments
) -> Sequence[Any]:
    returned = []
    found = list(rows)
    for row in found:
        tx.lock_unlocked("pending_request", row["id"])
    for row in limit_bytes(found, "body", arguments):
        tx.delete("pending_request", row["id"])
        returned.append(_returned_columns(row, arguments))
    return returned


def _returned_columns(row: Row, arguments: Arguments) -> tuple[Any, ...]:
    """The columns that the statements return; a long body is truncated."""
    names = (
        *("saga", "version", "definition_id", "audit_id", "reply_to", "correlation_id"),
        *("sender", "key", "role", "fingerprint"),
    )
    size = len(row["body"].encode())
    is_complete = size <= arguments["engine_bytes" if row["role"] is None else "role_bytes"]
    body = row["body"] if is_complete else row["body"][: arguments["excerpt_bytes"]]
    others = (row[name] for name in names)
    return (row["id"], row["kind"], row["run_id"], body, size, is_complete, *others)


def _due_since(item: tuple[Any, Row]) -> tuple[datetime, int]:
    number, row = item
    return row["not_before"] or row["received_at"], number


def _is_due(tx: MemoryTransaction, row: Row) -> bool:
    return row["not_before"] is None or row["not_before"] <= tx.now


def _is_startable(tx: MemoryTransaction, row: Row, saga: str, arguments: Arguments) -> bool:
    if row["kind"] != "start" or row["saga"] != saga:
        return False
    if row["version"] is None:
        return row["fingerprint"] is None
    return any(
        each["id"] in arguments["definition_ids"]
        and (each["name"], each["version"]) == (saga, row["version"])
        and row["fingerprint"] in (None, each["fingerprint"])
        for _, each in tx.scan("definition")
    )


def _is_for_loaded_definition(row: Row, arguments: Arguments) -> bool:
    ids = arguments["definition_ids"]
    return not row["awaits_start"] and (row["definition_id"] is None or row["definition_id"] in ids)


def start_is_pending(tx: MemoryTransaction, run_id: str) -> bool:
    rows = (row for _, row in tx.scan("pending_request"))
    return any(row["kind"] == "start" and row["run_id"] == run_id for row in rows)
