"""
What the statements of the barrier mean in the model, and statements of the simulated services.

`INSERT_EFFECT` records an effect. `DEDUPLICATE` is the deduplication of a service that does not use
the barrier and follows docs/protocol.md: it performs an action once for each idempotency key, and
never after its compensation. A rejection is repeated for the same key, unless the service forgets
rejections (see `workload.SampledOutcomes`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import text

from saga_engine.participant import barrier_statements
from saga_engine.vocabulary import Direction, Outcome
from simulation.memory_database import MemoryTransaction, StatementHandlers
from simulation.rows import jsonb, row_type

Arguments = Mapping[str, Any]

INSERT_EFFECT = text("insert an effect")
DEDUPLICATE = text("read and update the state of a step")
RECORD_REJECTION = text("record a rejection")

HANDLERS = StatementHandlers()

_Stored = row_type("outcome reply")
_TRANSACTION_ENDED = '{"code": "transaction_ended"}'
_TOMBSTONE_OUTCOME = "compensated"


@HANDLERS.handles(barrier_statements, "_CLAIM")
async def _claim(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    if not _try_advisory_lock(tx, arguments["lock_id"]):
        return [(False, False)]
    row = {**arguments, "outcome": Outcome.FAILED.value, "reply": _TRANSACTION_ENDED}
    return [(True, await tx.insert("barrier", _barrier_key(arguments), row))]


@HANDLERS.handles(barrier_statements, "_RECLAIM")
async def _reclaim(tx: MemoryTransaction, arguments: Arguments) -> int:
    row = await tx.lock("barrier", _barrier_key(arguments))
    if row is None or row["outcome"] != Outcome.REJECTED.value:
        return 0
    same_key = row["idempotency_key"] == arguments["idempotency_key"]
    if same_key or row["attempt"] >= arguments["attempt"]:
        return 0
    changed = {**arguments, "outcome": Outcome.FAILED.value, "reply": _TRANSACTION_ENDED}
    tx.put("barrier", _barrier_key(arguments), {**row, **changed})
    return 1


@HANDLERS.handles(barrier_statements, "_INSERT_TOMBSTONE")
async def _write_tombstone(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    key = (arguments["run_id"], arguments["step"], Direction.ACTION.value)
    if not _try_advisory_lock(tx, arguments["lock_id"]):
        return [(False, False)]
    row = await tx.lock("barrier", key)
    if row is None:
        row = {**arguments, "direction": Direction.ACTION.value, "reply": "null"}
    elif row["outcome"] not in (Outcome.REJECTED.value, _TOMBSTONE_OUTCOME):
        return [(True, False)]
    tx.put("barrier", key, {**row, "outcome": _TOMBSTONE_OUTCOME})
    return [(True, True)]


@HANDLERS.handles(barrier_statements, "_RECORD_RESULT")
async def _store_answer(tx: MemoryTransaction, arguments: Arguments) -> int:
    row = await tx.lock("barrier", _barrier_key(arguments))
    if row is None:
        return 0
    answer = {"outcome": arguments["outcome"], "reply": jsonb(arguments["reply"])}
    tx.put("barrier", _barrier_key(arguments), {**row, **answer})
    return 1


@HANDLERS.handles(barrier_statements, "_SELECT_RESULT")
async def _read_stored(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    row = tx.get("barrier", _barrier_key(arguments))
    return [] if row is None else [_Stored(row["outcome"], row["reply"])]


async def _insert_effect(tx: MemoryTransaction, arguments: Arguments) -> int:
    tx.put("effect", tx.next_value("effect"), dict(arguments))
    return 1


async def _deduplicate(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    """Return `new` once for each direction, then the state; `never` if nothing is to compensate."""
    step_key = (arguments["run_id"], arguments["step"])
    row = await tx.lock("deduplication", step_key) or {"state": "never", "rejected_keys": ()}
    state = row["state"]
    if arguments["direction"] == Direction.ACTION.value:
        key = arguments["idempotency_key"]
        if key in row["rejected_keys"]:
            return [("rejected",)]
        if state == "never" or (state == "done" and row["key"] != key):
            tx.put("deduplication", step_key, {**row, "state": "done", "key": key})
            return [("new",)]
        return [(state,)]
    tx.put("deduplication", step_key, {**row, "state": "compensated"})
    return [("new" if state == "done" else state,)]


async def _record_rejection(tx: MemoryTransaction, arguments: Arguments) -> int:
    step_key = (arguments["run_id"], arguments["step"])
    row = tx.get("deduplication", step_key)
    assert row is not None, "the step was deduplicated before"
    keys = (*row["rejected_keys"], arguments["idempotency_key"])
    tx.put("deduplication", step_key, {"state": "never", "rejected_keys": keys})
    return 1


HANDLERS.update(
    {
        id(INSERT_EFFECT): _insert_effect,
        id(DEDUPLICATE): _deduplicate,
        id(RECORD_REJECTION): _record_rejection,
    }
)


def _try_advisory_lock(tx: MemoryTransaction, lock: int) -> bool:
    """Take an advisory lock if it is free."""
    available = tx.is_lockable("advisory", lock)
    if available:
        tx.lock_unlocked("advisory", lock)
    return available


def _barrier_key(arguments: Arguments) -> tuple[str, str, str]:
    return arguments["run_id"], arguments["step"], arguments["direction"]
