"""
Requests of services and operators, recorded through the database functions that check them.

The same functions serve every role, the owner of the schema too. They record the role of the
session, which the caller cannot choose, and report a start whose business key another run has
(`request_start` in the migrations). A worker records its own pending requests with
`pending_requests.record`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from saga_engine.errors import ConfigurationError, StoreRefused
from saga_engine.payload.encryption import NO_ENCRYPTION, PayloadEncryption
from saga_engine.postgres.statement import Columns, Transaction, text
from saga_engine.store import business_keys
from saga_engine.store.business_keys import KeyOwner, KeyRequest
from saga_engine.store.json_column import dumps
from saga_engine.store.pending_requests import NewRequest, RequestKind
from saga_engine.vocabulary import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class NewStart:
    """
    A start to record.

    Args:
        version: None: the newest that a worker has now.
        must_be_known: record the start only if a worker has ever loaded the saga.
        fingerprint: the definition that the start is pinned to; None: the one that workers have.
    """

    saga: str
    version: int | None
    run_id: str
    key: str | None
    encrypted_input: Json
    plain_input: Json
    must_be_known: bool
    fingerprint: str | None = None


class StartOutcome(StrEnum):
    """What the function `request_start` did with a start."""

    RECORDED = "recorded"
    KEY_TAKEN = "key_taken"
    UNKNOWN_SAGA = "unknown_saga"
    DEFINITION_MISMATCH = "definition_mismatch"
    NOT_GRANTED = "not_granted"


class StartRow(NamedTuple):
    """
    What the function `request_start` returns.

    Of a key that another run has, it returns whether the inputs are equal or, if it cannot compare
    them, the stored digest, which is encrypted.
    """

    outcome: str
    owner_run_id: str | None
    pinned_version: int | None
    same_input: bool | None
    encrypted_digest: bytes | None


@dataclass(frozen=True, slots=True)
class StartResult:
    """The run that was recorded, or that has the business key, and the version of its saga."""

    owner: KeyOwner
    version: int | None


async def record_start(
    tx: Transaction, new_start: NewStart, encryption: PayloadEncryption = NO_ENCRYPTION
) -> StartResult | None:
    """
    Record a start and reserve its business key.

    If another transaction has just reserved the key, this waits until that transaction ends.

    Returns:
        None when no worker has ever loaded that saga and version.

    Raises:
        ConfigurationError: workers have other steps under that version.
        StoreRefused: the role may not start that saga, or the start exceeds a limit.
        SerializationFailure: the run with the key was dropped at this moment; try again.
        EncryptionError: the codec cannot encrypt the digest.
    """
    arguments = start_arguments(new_start, encryption)
    row: StartRow = (await tx.execute(_REQUEST_START, arguments)).one()
    is_undecided = row.same_input is None and row.encrypted_digest is None
    if row.outcome == StartOutcome.KEY_TAKEN and is_undecided:
        # The key was reserved before there was a codec, so its digest is not encrypted.
        digest = business_keys.input_digest(new_start.plain_input)
        row = (await tx.execute(_REQUEST_START, {**arguments, "input_digest": digest})).one()
    return start_result(row, new_start, encryption)


def start_result(
    row: StartRow, new_start: NewStart, encryption: PayloadEncryption = NO_ENCRYPTION
) -> StartResult | None:
    """Read what `request_start` returned; see `record_start`."""
    key_request = _key_request(new_start)
    outcome = StartOutcome(row.outcome)
    match outcome:
        case StartOutcome.UNKNOWN_SAGA:
            return None
        case StartOutcome.DEFINITION_MISMATCH:
            raise ConfigurationError(
                f"Workers have saga {new_start.saga!r} version {row.pinned_version} with other"
                " steps than this process. Give the new steps the next version; if the steps here"
                " are the old ones, deploy this process with the definition that the workers have."
            )
        case StartOutcome.NOT_GRANTED:
            raise StoreRefused(
                f"The role of this connection may not start saga {new_start.saga!r}. The owner of"
                " the schema grants it with a row in saga_engine.start_grant; see docs/security.md."
            )
        case StartOutcome.RECORDED | StartOutcome.KEY_TAKEN:
            pass
    assert row.owner_run_id is not None, "it is recorded, or another run has the key"
    if row.encrypted_digest is not None and key_request:
        owner = business_keys.owner_of(
            key_request, row.owner_run_id, bytes(row.encrypted_digest), encryption
        )
    else:
        same_input = outcome is StartOutcome.RECORDED or bool(row.same_input)
        owner = KeyOwner(row.owner_run_id, same_input)
    return StartResult(owner, row.pinned_version)


def start_arguments(
    new_start: NewStart, encryption: PayloadEncryption = NO_ENCRYPTION
) -> dict[str, Any]:
    """
    Make the arguments of `request_start`.

    With a codec there is no `input_digest`, because the digest that is stored cannot be compared.
    """
    key_request = _key_request(new_start)
    digest = business_keys.digest_to_store(key_request, encryption) if key_request else None
    return {
        "saga": new_start.saga,
        "version": new_start.version,
        "run_id": new_start.run_id,
        "key": new_start.key,
        "input_digest": digest if encryption.codec is None else None,
        "digest_to_store": digest,
        "body": dumps({"input": new_start.encrypted_input}),
        "must_be_known": new_start.must_be_known,
        "fingerprint": new_start.fingerprint,
    }


def _key_request(new_start: NewStart) -> KeyRequest | None:
    if not new_start.key:
        return None
    return KeyRequest(new_start.saga, new_start.key, new_start.run_id, new_start.plain_input)


async def record_operator_requests(tx: Transaction, requests: Sequence[NewRequest]) -> None:
    """
    Record cancels and resolves, each kind in order, after their actions (`audit.record`).

    Raises:
        StoreRefused: the role has not recorded the action of a request for its run.
    """
    for kind, statement in _STATEMENTS.items():
        same_kind = [request for request in requests if request.kind == kind]
        if same_kind:
            await tx.execute(statement, operator_request_columns(same_kind))


def operator_request_columns(requests: Sequence[NewRequest]) -> Columns:
    """Write the requests of operators as rows, in order."""
    return {
        "run_id": [request.run_id for request in requests],
        "audit_id": [request.audit_id for request in requests],
        "body": [dumps(request.body) for request in requests],
    }


_REQUEST_START = text(
    """
    SELECT outcome, owner_run_id::text, pinned_version, same_input, encrypted_digest
    FROM saga_engine.request_start(CAST(:saga AS text), CAST(:version AS integer),
        CAST(:run_id AS uuid), CAST(:key AS text), CAST(:input_digest AS bytea),
        CAST(:digest_to_store AS bytea),
        CAST(:body AS text), CAST(:must_be_known AS boolean), CAST(:fingerprint AS text))"""
)

_REQUEST_CANCEL = text(
    """
    SELECT saga_engine.request_cancel(
        CAST(:run_id AS uuid[]), CAST(:audit_id AS uuid[]), CAST(:body AS text[]))"""
)

_REQUEST_RESOLVE = text(
    """
    SELECT saga_engine.request_resolve(
        CAST(:run_id AS uuid[]), CAST(:audit_id AS uuid[]), CAST(:body AS text[]))"""
)

_STATEMENTS = {RequestKind.CANCEL: _REQUEST_CANCEL, RequestKind.RESOLVE: _REQUEST_RESOLVE}
