"""
What the barrier's statements mean in the model of PostgreSQL, and the statements of our services.

`DID` writes one effect down. `REMEMBER` is the memory of a service that has no barrier of ours, but
keeps to docs/protocol.md: it does nothing twice for one idempotency key and nothing after it was
undone. What it refused it refuses again until a person has it tried with another key, or it forgets
that, see `play.Lots`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import text

from saga_engine.participant import barrier
from saga_engine.vocabulary import Direction, Outcome
from simulation.memory_database import Answers, Transaction, jsonb, row_type

Arguments = Mapping[str, Any]

DID = text("an effect happens")
REMEMBER = text("has it been done before, or undone, or refused")
REFUSED = text("it is refused after all")

ANSWERS = Answers()

_Stored = row_type("outcome reply")
_ENDED = '{"code": "transaction_ended"}'
_TOMBSTONE = "compensated"


@ANSWERS.to(barrier, "_CLAIM")
async def _claim(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    if not _try(tx, arguments["lock"]):
        return [(False, False)]
    row = {**arguments, "outcome": Outcome.FAILED.value, "reply": _ENDED}
    return [(True, await tx.insert("barrier", _key(arguments), row))]


@ANSWERS.to(barrier, "_CLAIM_ANEW")
async def _claim_anew(tx: Transaction, arguments: Arguments) -> int:
    row = await tx.lock("barrier", _key(arguments))
    if row is None or row["outcome"] != Outcome.REJECTED.value:
        return 0
    same = row["idempotency_key"] == arguments["idempotency_key"]
    if same or row["attempt"] >= arguments["attempt"]:
        return 0
    changed = {**arguments, "outcome": Outcome.FAILED.value, "reply": _ENDED}
    tx.put("barrier", _key(arguments), {**row, **changed})
    return 1


@ANSWERS.to(barrier, "_BURY")
async def _bury(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    key = (arguments["run_id"], arguments["step"], Direction.ACTION.value)
    if not _try(tx, arguments["lock"]):
        return [(False, False)]
    row = await tx.lock("barrier", key)
    if row is None:
        row = {**arguments, "direction": Direction.ACTION.value, "reply": "null"}
    elif row["outcome"] not in (Outcome.REJECTED.value, _TOMBSTONE):
        return [(True, False)]
    tx.put("barrier", key, {**row, "outcome": _TOMBSTONE})
    return [(True, True)]


@ANSWERS.to(barrier, "_LEAVE")
async def _leave(tx: Transaction, arguments: Arguments) -> int:
    row = await tx.lock("barrier", _key(arguments))
    if row is None:
        return 0
    answer = {"outcome": arguments["outcome"], "reply": jsonb(arguments["reply"])}
    tx.put("barrier", _key(arguments), {**row, **answer})
    return 1


@ANSWERS.to(barrier, "_STORED")
async def _stored(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    row = tx.get("barrier", _key(arguments))
    return [] if row is None else [_Stored(row["outcome"], row["reply"])]


async def _did(tx: Transaction, arguments: Arguments) -> int:
    tx.put("effect", tx.number("effect"), dict(arguments))
    return 1


async def _remember(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    """Say `new` once for each direction, and then what it was; `never` for an undo of nothing."""
    place = (arguments["run_id"], arguments["step"])
    row = await tx.lock("memory", place) or {"state": "never", "refused": ()}
    state = row["state"]
    if arguments["direction"] == Direction.ACTION.value:
        key = arguments["idempotency_key"]
        if key in row["refused"]:
            return [("refused",)]
        if state == "never" or (state == "done" and row["key"] != key):
            tx.put("memory", place, {**row, "state": "done", "key": key})
            return [("new",)]
        return [(state,)]
    tx.put("memory", place, {**row, "state": "undone"})
    return [("new" if state == "done" else state,)]


async def _refused(tx: Transaction, arguments: Arguments) -> int:
    place = (arguments["run_id"], arguments["step"])
    row = tx.get("memory", place)
    assert row is not None, "it has been asked for"
    keys = (*row["refused"], arguments["idempotency_key"])
    tx.put("memory", place, {"state": "never", "refused": keys})
    return 1


ANSWERS.update({id(DID): _did, id(REMEMBER): _remember, id(REFUSED): _refused})


def _try(tx: Transaction, lock: int) -> bool:
    """Take an advisory lock that is free."""
    free = tx.free("advisory", lock)
    if free:
        tx.grab("advisory", lock)
    return free


def _key(arguments: Arguments) -> tuple[str, str, str]:
    return arguments["run_id"], arguments["step"], arguments["direction"]
