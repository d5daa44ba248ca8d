"""
Business keys: which run a key of a saga belongs to, and with which input it came.

A key is reserved in the transaction that starts its run, or that records the request to. Two that
want the same key at once meet in the primary key: the second waits for the first to commit, and
then finds the key held.

Of the input its digest is kept. Where payloads are sealed the digest is too, or who guesses an
input could look whether it was that; and because the key that sealed it is named in it, the same
input is known again after another key has become current.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import orjson

from saga_engine.errors import StoreUnavailable
from saga_engine.payload.encryption import PLAIN, SealError, Sealing, key_place
from saga_engine.postgres.statement import Transaction, text
from saga_engine.store.json_column import dumps
from saga_engine.vocabulary import Json

LOOKS = (0.0, 0.01, 0.04, 0.15)
"""Seconds before each look at a locked key: 0.2 in all, some ten times what a batch takes."""


@dataclass(frozen=True, slots=True)
class KeyWanted:
    """A run that wants a key for itself; its input is not sealed."""

    saga: str
    key: str
    run_id: str
    input: Json


@dataclass(frozen=True, slots=True)
class KeyHeld:
    """
    Who has the key, and whether it was reserved with the same input as now.

    `problem` says why that cannot be told: it is sealed with a key that is not here.
    """

    run_id: str
    same_input: bool
    problem: str = ""


async def try_reserve(
    tx: Transaction, wanted: Sequence[KeyWanted], sealing: Sealing = PLAIN
) -> list[KeyHeld | None]:
    """
    Reserve the keys that no run holds; who holds each, in the order of *wanted*.

    Where several want one key, the first gets it. A run that asks again holds its key already. None
    for a key that another transaction still wants after a moment: that of a caller, which records a
    start with `requests.start`, may stay open for as long as it likes, and no worker waits for it;
    that of another worker is over in milliseconds.

    Raises:
        StoreUnavailable: a key's run was dropped at this moment; try again.
        SealError: the codec cannot seal.
    """
    if not wanted:
        return []
    pairs = {(each.saga, each.key) for each in wanted}
    held_already = await _read(tx, sorted(pairs))
    free = held_already.keys() | await _locked(tx, pairs - held_already.keys())
    mine = [each for each in wanted if (each.saga, each.key) in free]
    held = iter(await _reserved(tx, mine, sealing))
    return [next(held) if (each.saga, each.key) in free else None for each in wanted]


async def _locked(tx: Transaction, pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Lock keys; those whose lock somebody else has after a few looks are left out."""
    locked: set[tuple[str, str]] = set()
    for pause in LOOKS:
        missing = sorted(pairs - locked)
        if missing:
            await asyncio.sleep(pause)
            sagas, keys = zip(*missing, strict=True)
            found = await tx.execute(_TRY, {"sagas": list(sagas), "keys": list(keys)})
            locked |= {(saga, key) for saga, key in found}
    return locked


async def _reserved(
    tx: Transaction, wanted: Sequence[KeyWanted], sealing: Sealing
) -> list[KeyHeld]:
    """Reserve keys whose lock this transaction has."""
    if not wanted:
        return []
    firsts: dict[tuple[str, str], tuple[str, bytes]] = {}
    for each in wanted:
        if (each.saga, each.key) not in firsts:
            firsts[each.saga, each.key] = (each.run_id, kept(each, sealing))
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
    if len(holders) != len(ordered):
        raise StoreUnavailable("A key was released while it was looked up. Nothing was written.")
    return [
        held(each, run_id, stored, sealing)
        for each in wanted
        for run_id, stored in [holders[each.saga, each.key]]
    ]


async def release(tx: Transaction, saga: str, key: str, run_id: str) -> None:
    """Give a key back, unless the run that it was reserved for is there and has it."""
    await tx.execute(_RELEASE, {"saga": saga, "key": key, "run_id": run_id})


async def _read(
    tx: Transaction, pairs: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], list[Any]]:
    """A statement of its own: it sees what the one before it had to wait for."""
    arguments = {"sagas": [saga for saga, _ in pairs], "keys": [key for _, key in pairs]}
    return {(saga, key): holder for saga, key, *holder in await tx.execute(_READ, arguments)}


def equal_inputs(one: Json, other: Json) -> bool:
    """Whether two inputs are equal as JSON: `1` and `1.0` are, `1` and `true` are not."""
    return digest(one) == digest(other)


def digest(given: Json) -> bytes:
    """Equal inputs have equal digests, however their keys are ordered and numbers written."""
    text = dumps(given, ordered=True)
    if "." in text or "e" in text:
        # JSON has one kind of number, and jsonb writes no exponents: 1, 1.0 and 1e0 are equal.
        text = dumps(json.loads(text, parse_float=_canonical), ordered=True)
    return sha256(text.encode()).digest()


def _canonical(number: str) -> float:
    read = float(number)
    whole = read.is_integer() and -(2**63) <= read < 2**64
    return int(read) if whole else read


def kept(wanted: KeyWanted, sealing: Sealing) -> bytes:
    """What is kept of the input: its digest, or with a codec the digest sealed for that key."""
    plain = digest(wanted.input)
    sealed = sealing.sealed(plain.hex(), key_place(wanted.saga, wanted.key))
    return plain if isinstance(sealed, str) else dumps(sealed).encode()


def held(wanted: KeyWanted, run_id: str, stored: bytes, sealing: Sealing) -> KeyHeld:
    """Who holds the key, and whether the digest stored with it is that of the same input."""
    mine = digest(wanted.input)
    if len(stored) == len(mine):
        return KeyHeld(run_id, stored == mine)
    try:
        opened = sealing.unsealed(orjson.loads(stored), key_place(wanted.saga, wanted.key))
    except SealError as error:
        return KeyHeld(run_id, same_input=False, problem=str(error))
    return KeyHeld(run_id, opened == mine.hex())


# The lock stands for the key while no row does. Two keys may share one: then one waits in vain.
_LOCK = "hashtextextended(format('saga-engine key %s/%s', {saga}, {key}), 0)"

_TRY = text(
    f"""
    SELECT w.saga, w.key
    FROM unnest(CAST(:sagas AS text[]), CAST(:keys AS text[])) AS w(saga, key)
    WHERE pg_try_advisory_xact_lock({_LOCK.format(saga="w.saga", key="w.key")})"""  # noqa: S608 - a constant
)

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
