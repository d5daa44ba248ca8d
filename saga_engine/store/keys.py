"""
Business keys: which run a key of a saga belongs to, and with which input it came.

A key is reserved in the transaction that starts its run, or that records the request to. Two that
want the same key at once meet in the primary key: the second waits for the first to commit, and
then finds the key held.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from sqlalchemy import text

from saga_engine.errors import StoreUnavailable
from saga_engine.saga.vocabulary import Json
from saga_engine.store.database import Transaction
from saga_engine.store.document import dumps


@dataclass(frozen=True, slots=True)
class KeyWanted:
    """A run that wants a key for itself."""

    saga: str
    key: str
    run_id: str
    input: Json


@dataclass(frozen=True, slots=True)
class KeyHeld:
    """Who has the key, and whether it was reserved with the same input as now."""

    run_id: str
    same_input: bool


async def reserve(tx: Transaction, wanted: Sequence[KeyWanted]) -> list[KeyHeld]:
    """
    Reserve the keys that nobody holds; who holds each, in the order of *wanted*.

    Where several want one key, the first gets it. A run that asks again holds its key already.

    Raises:
        StoreUnavailable: a key's run was dropped at this moment; try again.
    """
    if not wanted:
        return []
    digests = [_digest(each.input) for each in wanted]
    firsts: dict[tuple[str, str], tuple[str, bytes]] = {}
    for each, digest in zip(wanted, digests, strict=True):
        firsts.setdefault((each.saga, each.key), (each.run_id, digest))
    ordered = sorted(firsts)  # so that two transactions wait for each other in one order
    arguments = {
        "sagas": [saga for saga, _ in ordered],
        "keys": [key for _, key in ordered],
        "run_ids": [firsts[pair][0] for pair in ordered],
        "digests": [firsts[pair][1] for pair in ordered],
    }
    holders = {(saga, key): holder for saga, key, *holder in await tx.execute(_RESERVE, arguments)}
    others = [pair for pair in ordered if pair not in holders]
    if others:
        holders |= await _read(tx, others)
    return [
        KeyHeld(run_id, held == digest)
        for each, digest in zip(wanted, digests, strict=True)
        for run_id, held in [holders[each.saga, each.key]]
    ]


async def release(tx: Transaction, saga: str, key: str, run_id: str) -> None:
    """Give a key back, unless the run that it was reserved for is there and has it."""
    await tx.execute(_RELEASE, {"saga": saga, "key": key, "run_id": run_id})


async def _read(
    tx: Transaction, pairs: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], list[Any]]:
    """A statement of its own: it sees what the one before it had to wait for."""
    arguments = {"sagas": [saga for saga, _ in pairs], "keys": [key for _, key in pairs]}
    found = {(saga, key): holder for saga, key, *holder in await tx.execute(_READ, arguments)}
    if len(found) != len(pairs):
        raise StoreUnavailable("A key was released while it was looked up. Nothing was written.")
    return found


def _digest(given: Json) -> bytes:
    """Equal inputs have equal digests, however their keys are ordered."""
    return sha256(dumps(given, ordered=True).encode()).digest()


_RESERVE = text(
    """
    INSERT INTO saga_engine.run_key (saga, key, run_id, input_digest)
    SELECT * FROM unnest(CAST(:sagas AS text[]), CAST(:keys AS text[]),
        CAST(:run_ids AS uuid[]), CAST(:digests AS bytea[]))
    ON CONFLICT (saga, key) DO NOTHING
    RETURNING saga, key, run_id::text, input_digest"""
)

_READ = text(
    """
    SELECT k.saga, k.key, k.run_id::text, k.input_digest
    FROM unnest(CAST(:sagas AS text[]), CAST(:keys AS text[])) AS w(saga, key)
    JOIN saga_engine.run_key AS k ON k.saga = w.saga AND k.key = w.key
    WHERE k.saga = ANY (CAST(:sagas AS text[])) AND k.key = ANY (CAST(:keys AS text[]))"""
)

_RELEASE = text(
    """
    DELETE FROM saga_engine.run_key AS k
    WHERE k.saga = :saga AND k.key = :key AND k.run_id = CAST(:run_id AS uuid)
        AND NOT EXISTS (
            SELECT FROM saga_engine.run AS r
            JOIN saga_engine.definition AS d ON d.id = r.definition_id
            WHERE r.run_id = k.run_id AND r.key = k.key AND d.name = k.saga)"""
)
