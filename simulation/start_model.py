"""What business keys and the function `request_start` mean in the model."""

from collections.abc import Iterable, Sequence
from typing import Any

from saga_engine.errors import StoreRefused
from saga_engine.store import business_keys, checked_requests
from simulation import request_checks
from simulation.definition_model import definition_of
from simulation.memory_database import MemoryTransaction, StatementHandlers
from simulation.pending_model import add_pending_request, start_is_pending
from simulation.rows import Arguments, Row, row_type, unnest

HANDLERS = StatementHandlers()


_Started = row_type("outcome owner_run_id pinned_version same_input encrypted_digest")


UNENCRYPTED_DIGEST_BYTES = 32
"""Bytes of an unencrypted digest."""


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
            assert holder is not None, "its lock is held"
            if holder["run_id"] != run_id:
                is_unencrypted = len(holder["input_digest"]) == UNENCRYPTED_DIGEST_BYTES
                matches = (
                    holder["input_digest"] == arguments["input_digest"] if is_unencrypted else None
                )
                encrypted_digest = None if is_unencrypted else holder["input_digest"]
                return [_Started("key_taken", holder["run_id"], pinned, matches, encrypted_digest)]
    if not await tx.insert("start_lock", run_id, {}) or start_is_pending(tx, run_id):
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
    """The version and the fingerprint; the first is None if unknown, the second if different."""
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


def _pairs(arguments: Arguments) -> Iterable[tuple[str, str]]:
    return zip(arguments["saga"], arguments["key"], strict=True)
