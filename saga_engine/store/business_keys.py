"""
Business keys: which run a key of a saga belongs to, and with which input it was reserved.

A key is reserved in the transaction that starts its run, or that records the start. If two
transactions reserve the same key at once, the second waits for the first to commit, and then finds
the owner. A worker waits for LOCK_RETRY_DELAYS only, and defers the start.

Where payloads are encrypted the digest is too: otherwise a reader could test whether the input has
a guessed value. The encrypted digest names its encryption key, so the same input is recognized
after another key has become current.
"""

import asyncio
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol, TypeAlias

import orjson

from saga_engine.errors import StoreUnavailable
from saga_engine.payload.encryption import (
    NO_ENCRYPTION,
    EncryptionError,
    PayloadEncryption,
    key_associated_data,
)
from saga_engine.postgres.statement import Columns, Transaction, text
from saga_engine.store.json_column import dumps
from saga_engine.vocabulary import Json

LOCK_RETRY_DELAYS = (0.0, 0.01, 0.04, 0.15)
"""Seconds before each try of a locked key: 0.2 in all, about ten times what a batch takes."""


SagaKey: TypeAlias = tuple[str, str]
"""The name of a saga, and a business key."""

StoredKey: TypeAlias = tuple[str, bytes]
"""The run that has a key, and the digest of its input."""


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """A run that requests a key; its input is not encrypted."""

    saga: str
    key: str
    run_id: str
    input: Json


@dataclass(frozen=True, slots=True)
class KeyOwner:
    """
    The run that has the key, and whether the key was reserved with the same input as now.

    `decryption_error` says why the inputs cannot be compared: the digest is encrypted with a key
    that this process does not have.
    """

    run_id: str
    same_input: bool
    decryption_error: str = ""


class KeyTable(Protocol):
    """The table of business keys in one transaction. Each method is one statement."""

    async def try_lock_keys(self, pairs: Sequence[SagaKey]) -> set[SagaKey]:
        """Lock keys until the transaction ends; those that another one has are left out."""

    async def insert_keys(self, new: Mapping[SagaKey, StoredKey]) -> dict[SagaKey, StoredKey]:
        """Insert keys in order, and return those that no run had."""

    async def read_keys(self, pairs: Sequence[SagaKey]) -> dict[SagaKey, StoredKey]:
        """Read the keys that a run has."""


class _SqlKeyTable:
    """The table in PostgreSQL."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def try_lock_keys(self, pairs: Sequence[SagaKey]) -> set[SagaKey]:
        found = await self._tx.execute(_TRY_LOCK, _pair_columns(pairs))
        return {(saga, key) for saga, key in found}

    async def insert_keys(self, new: Mapping[SagaKey, StoredKey]) -> dict[SagaKey, StoredKey]:
        columns = {
            **_pair_columns(new),
            "run_id": [run_id for run_id, _ in new.values()],
            "input_digest": [digest for _, digest in new.values()],
        }
        return _by_pair(await self._tx.execute(_RESERVE, columns))

    async def read_keys(self, pairs: Sequence[SagaKey]) -> dict[SagaKey, StoredKey]:
        return _by_pair(await self._tx.execute(_READ, _pair_columns(pairs)))


def _pair_columns(pairs: Collection[SagaKey]) -> Columns:
    return {"saga": [saga for saga, _ in pairs], "key": [key for _, key in pairs]}


def _by_pair(rows: Iterable[Any]) -> dict[SagaKey, StoredKey]:
    return {(saga, key): (run_id, digest) for saga, key, run_id, digest in rows}


async def try_reserve(
    tx: Transaction, requests: Sequence[KeyRequest], encryption: PayloadEncryption = NO_ENCRYPTION
) -> list[KeyOwner | None]:
    """
    Reserve the keys that no run has, and return the owner of each, in the order of *requests*.

    If several requests name one key, the first gets it. A run that requests its own key again is
    its owner.

    The owner is None if another transaction still has the lock of the key after
    `LOCK_RETRY_DELAYS`. The transaction of a client that records a start may stay open for any
    time, and no worker waits for it; that of another worker ends in milliseconds.

    Raises:
        StoreUnavailable: the run with a key was dropped at this moment; try again.
        EncryptionError: the codec cannot encrypt the digest.
    """
    return await reserve(_SqlKeyTable(tx), requests, encryption)


async def reserve(
    table: KeyTable, requests: Sequence[KeyRequest], encryption: PayloadEncryption = NO_ENCRYPTION
) -> list[KeyOwner | None]:
    """Reserve keys in a table; see `try_reserve`."""
    if not requests:
        return []
    pairs = {(request.saga, request.key) for request in requests}
    owned = await table.read_keys(sorted(pairs))
    available = owned.keys() | await _lock(table, pairs - owned.keys())
    reservable = [request for request in requests if (request.saga, request.key) in available]
    owners = iter(await _insert_or_read(table, reservable, encryption))
    return [
        next(owners) if (request.saga, request.key) in available else None for request in requests
    ]


async def _lock(table: KeyTable, pairs: set[SagaKey]) -> set[SagaKey]:
    """Lock keys; those that another transaction has locked after the last try are left out."""
    locked: set[SagaKey] = set()
    for delay in LOCK_RETRY_DELAYS:
        missing = sorted(pairs - locked)
        if missing:
            await asyncio.sleep(delay)
            locked |= await table.try_lock_keys(missing)
    return locked


async def _insert_or_read(
    table: KeyTable, requests: Sequence[KeyRequest], encryption: PayloadEncryption
) -> list[KeyOwner]:
    """Insert keys that this transaction has locked, and read those that a run has."""
    if not requests:
        return []
    first_requests: dict[SagaKey, StoredKey] = {}
    for request in requests:
        if (request.saga, request.key) not in first_requests:
            first_requests[request.saga, request.key] = (
                request.run_id,
                digest_to_store(request, encryption),
            )
    ordered = sorted(first_requests)  # all transactions lock the rows in one order
    owners = await table.insert_keys({pair: first_requests[pair] for pair in ordered})
    already_owned = [pair for pair in ordered if pair not in owners]
    if already_owned:
        owners |= await table.read_keys(already_owned)
    if len(owners) != len(ordered):
        raise StoreUnavailable("A key was released while it was looked up. Nothing was written.")
    return [
        owner_of(request, run_id, stored, encryption)
        for request in requests
        for run_id, stored in [owners[request.saga, request.key]]
    ]


async def release(tx: Transaction, saga: str, key: str, run_id: str) -> None:
    """Give a key back, unless the run that it was reserved for is there and has it."""
    await tx.execute(_RELEASE, {"saga": saga, "key": key, "run_id": run_id})


def equal_inputs(one: Json, other: Json) -> bool:
    """Whether two inputs are equal as JSON: `1` and `1.0` are, `1` and `true` are not."""
    return input_digest(one) == input_digest(other)


def input_digest(value: Json) -> bytes:
    """Equal inputs have equal digests, however their keys are ordered and numbers written."""
    canonical_json = dumps(value, sort_keys=True)
    if "." in canonical_json or "e" in canonical_json:
        # JSON has one kind of number, and jsonb writes no exponents: 1, 1.0 and 1e0 are equal.
        canonical_json = dumps(
            json.loads(canonical_json, parse_float=_canonical_number), sort_keys=True
        )
    return sha256(canonical_json.encode()).digest()


def _canonical_number(number: str) -> float:
    parsed = float(number)
    is_whole = parsed.is_integer() and -(2**63) <= parsed < 2**64
    return int(parsed) if is_whole else parsed


def digest_to_store(request: KeyRequest, encryption: PayloadEncryption) -> bytes:
    """Return the digest that is stored with the key; with a codec it is encrypted for that key."""
    plain_digest = input_digest(request.input)
    encrypted = encryption.encrypt(
        plain_digest.hex(), key_associated_data(request.saga, request.key)
    )
    return plain_digest if isinstance(encrypted, str) else dumps(encrypted).encode()


def owner_of(
    request: KeyRequest, run_id: str, stored_digest: bytes, encryption: PayloadEncryption
) -> KeyOwner:
    """Compare the digest that is stored with a key with that of the requested input."""
    requested_digest = input_digest(request.input)
    if len(stored_digest) == len(requested_digest):
        return KeyOwner(run_id, stored_digest == requested_digest)
    try:
        decrypted = encryption.decrypt(
            orjson.loads(stored_digest), key_associated_data(request.saga, request.key)
        )
    except EncryptionError as error:
        return KeyOwner(run_id, same_input=False, decryption_error=str(error))
    return KeyOwner(run_id, decrypted == requested_digest.hex())


# The lock represents the key while there is no row. Two keys may have the same lock: then one waits
# without need.
LOCK_ID = "hashtextextended(format('saga-engine key %s/%s', {saga}, {key}), 0)"

_TRY_LOCK = text(
    f"""
    SELECT w.saga, w.key
    FROM unnest(CAST(:saga AS text[]), CAST(:key AS text[])) AS w(saga, key)
    WHERE pg_try_advisory_xact_lock({LOCK_ID.format(saga="w.saga", key="w.key")})"""  # noqa: S608 - a constant
)

_RESERVE = text(
    """
    INSERT INTO saga_engine.business_key (saga, key, run_id, input_digest)
    SELECT * FROM unnest(CAST(:saga AS text[]), CAST(:key AS text[]),
        CAST(:run_id AS uuid[]), CAST(:input_digest AS bytea[]))
    ON CONFLICT (saga, key) DO NOTHING
    RETURNING saga, key, run_id::text, input_digest"""
)

_READ = text(
    """
    SELECT k.saga, k.key, k.run_id::text, k.input_digest
    FROM unnest(CAST(:saga AS text[]), CAST(:key AS text[])) AS w(saga, key)
    JOIN saga_engine.business_key AS k ON k.saga = w.saga AND k.key = w.key
    WHERE k.saga = ANY (CAST(:saga AS text[])) AND k.key = ANY (CAST(:key AS text[]))"""
)

_RELEASE = text(
    """
    DELETE FROM saga_engine.business_key AS k
    WHERE k.saga = :saga AND k.key = :key AND k.run_id = CAST(:run_id AS uuid)
        AND NOT EXISTS (
            SELECT FROM saga_engine.run AS r
            JOIN saga_engine.definition AS d ON d.id = r.definition_id
            WHERE r.run_id = k.run_id AND r.key = k.key AND d.name = k.saga)"""
)
