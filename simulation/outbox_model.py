"""What the statements of the outbox and of dead letters mean in the model."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import orjson

from saga_engine.store import dead_letters, outbox
from simulation.memory_database import MemoryTransaction, StatementHandlers
from simulation.rows import Arguments, Row, oldest_age, unnest

HANDLERS = StatementHandlers()


@HANDLERS.handles(outbox, "_ADD")
async def _add_commands(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
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
    for row in unnest(names, arguments):
        row |= {"id": tx.next_value("outbox"), "created_at": tx.now, "claimed_at": None}
        tx.put("outbox", row["id"], row)
        numbers.append((row["id"],))
    return numbers


@HANDLERS.handles(outbox, "_DELETE")
async def _delete_commands(tx: MemoryTransaction, arguments: Arguments) -> int:
    deleted = 0
    for number in arguments["ids"]:
        if tx.get("outbox", number) is not None and tx.is_lockable("outbox", number):
            tx.lock_unlocked("outbox", number)
            tx.delete("outbox", number)
            deleted += 1
    return deleted


@HANDLERS.handles(outbox, "_CLAIM_STALE")
async def _claim_commands(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    now, limit = tx.now, arguments["limit"]
    old = [
        row
        for number, row in sorted(tx.scan("outbox"))
        if (row["claimed_at"] or row["created_at"]) <= now - arguments["age"]
        and tx.is_lockable("outbox", number)
    ]
    names = ("created_at", "run_id", "saga", "version", "step", "direction", "attempt", "command")
    claimed = []
    for row in limit_bytes(old[:limit], "payload", arguments):
        tx.lock_unlocked("outbox", row["id"])
        tx.put("outbox", row["id"], {**row, "claimed_at": now})
        values = [row[name] for name in (*names, "idempotency_key", "payload", "due_at")]
        claimed.append((row["id"], _is_awaited(tx, row), *values))
    return claimed


@HANDLERS.handles(outbox, "_BACKLOG")
async def _outbox_backlog(tx: MemoryTransaction, _: Arguments) -> Sequence[Any]:
    times = [row["created_at"] for _, row in tx.scan("outbox")]
    return [(len(times), oldest_age(tx.now, times))]


def _is_awaited(tx: MemoryTransaction, command: Row) -> bool:
    run = tx.get("run", command["run_id"])
    if run is None:
        return True
    step = orjson.loads(run["state"]).get("steps", {}).get(command["step"], {})
    progress = step.get(command["direction"], {})
    expected = ("in_flight", command["attempt"])
    return (progress.get("status"), progress.get("attempts")) == expected


def limit_bytes(rows: Iterable[Row], column: str, arguments: Arguments) -> Iterator[Row]:
    """Omit the rows after `max_bytes` bytes of a column."""
    before = 0
    for row in rows:
        if before < arguments["max_bytes"]:
            yield row
        before += len(row[column].encode())


@HANDLERS.handles(dead_letters, "_RECORD")
async def _add_dead_letters(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    names = {name: name for name in arguments if name != "quota"}
    added: list[tuple[int]] = []
    for row in unnest(names, arguments):
        number = tx.next_value("dead_letter")
        tx.put("dead_letter", number, {**row, "id": number, "state": "open"})
        added.append((len(added) + 1,))
    return added
