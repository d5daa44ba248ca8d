"""
What services and operators ask for, by way of the functions of the database that check them.

The same functions serve every role, the owner of the schema too. They write the role of the session
beside what is said, so that who did it cannot be forged; the migrations show what else they hold a
request to. A worker writes what it keeps for itself with `inbox.record`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from saga_engine.errors import ConfigurationError, StoreRefused
from saga_engine.payload.encryption import PLAIN, Sealing
from saga_engine.postgres.statement import Transaction, text
from saga_engine.store import business_keys
from saga_engine.store.business_keys import KeyHeld, KeyWanted
from saga_engine.store.json_column import dumps
from saga_engine.store.pending_requests import Item
from saga_engine.vocabulary import Json


@dataclass(frozen=True, slots=True)
class StartWanted:
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
    input: Json
    given: Json
    known: bool
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """The run that was recorded, or that holds the key; and the version it is started with."""

    holder: KeyHeld
    version: int | None


async def start(tx: Transaction, wanted: StartWanted, sealing: Sealing = PLAIN) -> Started | None:
    """
    Record a start, and reserve its key; None: no worker has ever loaded that saga and version.

    A key that another transaction has just reserved is waited for until that ends.

    Raises:
        ConfigurationError: workers have other steps under that version.
        StoreRefused: the role may not start that saga, or the start is beyond a limit.
        StoreUnavailable: the key's run was dropped at this moment; try again.
        SealError: the codec cannot seal.
    """
    mine = wanted.key and KeyWanted(wanted.saga, wanted.key, wanted.run_id, wanted.given)
    arguments = {
        "saga": wanted.saga,
        "version": wanted.version,
        "run_id": wanted.run_id,
        "key": wanted.key,
        "digest": None,
        "kept": business_keys.kept(mine, sealing) if mine else None,
        "body": dumps({"input": wanted.input}),
        "known": wanted.known,
        "fingerprint": wanted.fingerprint,
    }
    if mine and sealing.codec is None:
        arguments["digest"] = arguments["kept"]
    row = (await tx.execute(_START, arguments)).one()
    if row.outcome == "held" and mine and row.same is None and row.sealed is None:
        # It was reserved before there was a codec. Only now is the digest needed as it is.
        row = (
            await tx.execute(_START, {**arguments, "digest": business_keys.digest(wanted.given)})
        ).one()
    if row.outcome == "unknown_saga":
        return None
    if row.outcome == "mismatch":
        raise ConfigurationError(
            f"Workers have saga {wanted.saga!r} version {row.pinned} with other steps than this"
            " process. Give the new steps the next version; if the steps here are the old ones,"
            " deploy this process with the definition that the workers have."
        )
    if row.outcome == "not_granted":
        raise StoreRefused(
            f"The role of this connection may not start saga {wanted.saga!r}. The owner of the"
            " schema grants it with a row in saga_engine.start_grant; see docs/security.md."
        )
    if row.sealed is not None and mine:
        return Started(business_keys.held(mine, row.holder, bytes(row.sealed), sealing), row.pinned)
    return Started(KeyHeld(row.holder, row.outcome == "recorded" or bool(row.same)), row.pinned)


async def record(tx: Transaction, items: Sequence[Item]) -> None:
    """
    Record cancels and resolves, in order of each; their acts are on record with `audit.record`.

    Raises:
        StoreRefused: the act of one is not on record for its run, by this role.
    """
    for kind, statement in _STATEMENTS.items():
        mine = [item for item in items if item.kind == kind]
        if mine:
            arguments = {
                "run_ids": [item.run_id for item in mine],
                "audit_ids": [item.audit_id for item in mine],
                "bodies": [dumps(item.body) for item in mine],
            }
            await tx.execute(statement, arguments)


_START = text(
    """
    SELECT outcome, holder::text, pinned, same, sealed
    FROM saga_engine.request_start(CAST(:saga AS text), CAST(:version AS integer),
        CAST(:run_id AS uuid), CAST(:key AS text), CAST(:digest AS bytea), CAST(:kept AS bytea),
        CAST(:body AS text), CAST(:known AS boolean), CAST(:fingerprint AS text))"""
)

_CANCEL = text(
    """
    SELECT saga_engine.request_cancel(
        CAST(:run_ids AS uuid[]), CAST(:audit_ids AS uuid[]), CAST(:bodies AS text[]))"""
)

_RESOLVE = text(
    """
    SELECT saga_engine.request_resolve(
        CAST(:run_ids AS uuid[]), CAST(:audit_ids AS uuid[]), CAST(:bodies AS text[]))"""
)

_STATEMENTS = {"cancel": _CANCEL, "resolve": _RESOLVE}
