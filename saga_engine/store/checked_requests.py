"""
What services and operators ask for, by way of the functions of the database that check them.

The same functions serve every role, the owner of the schema too. They write the role of the session
beside what is said, so that who did it cannot be forged; the migrations show what else they hold a
request to. A worker writes what it keeps for itself with `inbox.record`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from saga_engine.errors import ConfigurationError, StoreRefused
from saga_engine.payload.encryption import NO_ENCRYPTION, PayloadEncryption
from saga_engine.postgres.statement import Transaction, text
from saga_engine.store import business_keys
from saga_engine.store.business_keys import KeyOwner, KeyRequest
from saga_engine.store.json_column import dumps
from saga_engine.store.pending_requests import NewRequest
from saga_engine.vocabulary import Json


@dataclass(frozen=True, slots=True)
class NewStart:
    """
    A start to record; `input` is sealed, `given` is what it was before.

    A `version` of None is the newest that workers have now. `known`: only when a worker has loaded
    the saga. The start is pinned to the definition of that `fingerprint`; None: to the one that
    workers have.
    """

    saga: str
    version: int | None
    run_id: str
    key: str | None
    encrypted_input: Json
    plain_input: Json
    must_be_known: bool
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class StartResult:
    """The run that was recorded, or that holds the key; and the version it is started with."""

    owner: KeyOwner
    version: int | None


async def record_start(
    tx: Transaction, new_start: NewStart, encryption: PayloadEncryption = NO_ENCRYPTION
) -> StartResult | None:
    """
    Record a start, and reserve its key; None: no worker has ever loaded that saga and version.

    A key that another transaction has just reserved is waited for until that ends.

    Raises:
        ConfigurationError: workers have other steps under that version.
        StoreRefused: the role may not start that saga, or the start is beyond a limit.
        StoreUnavailable: the key's run was dropped at this moment; try again.
        SealError: the codec cannot seal.
    """
    key_request = new_start.key and KeyRequest(
        new_start.saga, new_start.key, new_start.run_id, new_start.plain_input
    )
    arguments = {
        "saga": new_start.saga,
        "version": new_start.version,
        "run_id": new_start.run_id,
        "key": new_start.key,
        "input_digest": None,
        "digest_to_store": business_keys.digest_to_store(key_request, encryption)
        if key_request
        else None,
        "body": dumps({"input": new_start.encrypted_input}),
        "must_be_known": new_start.must_be_known,
        "fingerprint": new_start.fingerprint,
    }
    if key_request and encryption.codec is None:
        arguments["input_digest"] = arguments["digest_to_store"]
    row = (await tx.execute(_REQUEST_START, arguments)).one()
    if (
        row.outcome == "key_taken"
        and key_request
        and row.same_input is None
        and row.encrypted_digest is None
    ):
        # It was reserved before there was a codec. Only now is the digest needed as it is.
        row = (
            await tx.execute(
                _REQUEST_START,
                {**arguments, "input_digest": business_keys.input_digest(new_start.plain_input)},
            )
        ).one()
    if row.outcome == "unknown_saga":
        return None
    if row.outcome == "definition_mismatch":
        raise ConfigurationError(
            f"Workers have saga {new_start.saga!r} version {row.pinned_version} with other"
            " steps than"
            " this process. Give the new steps the next version; if the steps here are the old"
            " ones,"
            " deploy this process with the definition that the workers have."
        )
    if row.outcome == "not_granted":
        raise StoreRefused(
            f"The role of this connection may not start saga {new_start.saga!r}. The owner of the"
            " schema grants it with a row in saga_engine.start_grant; see docs/security.md."
        )
    if row.encrypted_digest is not None and key_request:
        return StartResult(
            business_keys.owner_of(
                key_request, row.owner_run_id, bytes(row.encrypted_digest), encryption
            ),
            row.pinned_version,
        )
    return StartResult(
        KeyOwner(row.owner_run_id, row.outcome == "recorded" or bool(row.same_input)),
        row.pinned_version,
    )


async def record_operator_requests(tx: Transaction, requests: Sequence[NewRequest]) -> None:
    """
    Record cancels and resolves, in order of each; their acts are on record with `audit.record`.

    Raises:
        StoreRefused: the act of one is not on record for its run, by this role.
    """
    for kind, statement in _STATEMENTS.items():
        same_kind = [request for request in requests if request.kind == kind]
        if same_kind:
            arguments = {
                "run_ids": [request.run_id for request in same_kind],
                "audit_ids": [request.audit_id for request in same_kind],
                "bodies": [dumps(request.body) for request in same_kind],
            }
            await tx.execute(statement, arguments)


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
        CAST(:run_ids AS uuid[]), CAST(:audit_ids AS uuid[]), CAST(:bodies AS text[]))"""
)

_REQUEST_RESOLVE = text(
    """
    SELECT saga_engine.request_resolve(
        CAST(:run_ids AS uuid[]), CAST(:audit_ids AS uuid[]), CAST(:bodies AS text[]))"""
)

_STATEMENTS = {"cancel": _REQUEST_CANCEL, "resolve": _REQUEST_RESOLVE}
