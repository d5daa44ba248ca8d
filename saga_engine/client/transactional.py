"""
Starting a run inside the caller's own transaction: an order and its saga are committed together.

The start is recorded in the engine's tables over the caller's connection, so no message is sent and
no broker is needed. A worker executes it once the caller has committed; nothing here commits.
"""

from functools import cache

from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.client.handle import RunHandle
from saga_engine.client.inputs import (
    check_limits,
    checked_key,
    input_json,
    name_and_version,
    parse_run_id,
)
from saga_engine.encryption.configuration import encryption_from, encryption_from_environment
from saga_engine.errors import Conflict, NotFound
from saga_engine.identifiers import uuid7
from saga_engine.payload.encryption import PayloadEncryption, input_associated_data
from saga_engine.payload.limits import BodyLimits
from saga_engine.postgres import caller_connection
from saga_engine.protocol.limits import body_limits
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings
from saga_engine.store import checked_requests
from saga_engine.store.business_keys import KeyOwner
from saga_engine.store.checked_requests import NewStart
from saga_engine.store.database import SqlAlchemyTransaction


async def start_in_transaction(
    connection: AsyncConnection,
    saga: str | Saga,
    input: object,  # noqa: A002 - the saga's own word for it
    *,
    key: str | None = None,
    version: int | None = None,
    settings: Settings | None = None,
) -> RunHandle:
    """
    Record the start of a run in the caller's transaction. It is accepted when that commits.

        async with engine.begin() as connection:
            await connection.execute(insert(orders).values(id="o-1"))
            await start_in_transaction(connection, "place-order", order, key="o-1")

    With a session, pass `await session.connection()`. Two starts with one key wait for each other.

    Args:
        connection: to the engine's database, in a transaction.
        saga: its name, or its definition, with which the input is validated.
        input: a pydantic model, or plain JSON.
        key: a business key, unique for each saga: the same key and input name the same run.
        version: by default the newest that workers have now, or else had last. The run keeps it.
            A worker counts for `worker_heartbeat_timeout` seconds after its last heartbeat.
        settings: codec and limits; by default the environment's, which is read once.

    Raises:
        InvalidInput: the input does not match the saga, cannot be stored or exceeds a limit; or
            the connection is in autocommit, or its transaction has failed.
        NotFound: no worker has ever loaded a saga of that name. Not checked with a definition, so
            that a service may be rolled out before the worker.
        Conflict: the key belongs to a run with another input.
        ConfigurationError: the codec is not usable, the database is not UTF8, or workers have other
            steps under that version.
        StoreRefused: the role of this connection may not start that saga.
        SerializationFailure: another transaction took the key first: repeat the transaction.
        StoreError: the database refused, or is not the engine's.
    """
    request, encryption = _new_start(saga, input, key, version, settings)
    return await _record_start(connection, request, encryption)


def _new_start(
    saga: str | Saga,
    value: object,
    key: str | None,
    version: int | None,
    settings: Settings | None,
) -> tuple[NewStart, PayloadEncryption]:
    name, requested_version = name_and_version(saga, version)
    encryption = encryption_from(settings) if settings else encryption_from_environment()
    run_id, plain_input = str(uuid7()), input_json(saga, value)
    encrypted_input = encryption.encrypt(plain_input, input_associated_data(name, run_id))
    limits, text_bytes = _limits_from(settings) if settings else _limits_from_environment()
    check_limits({"input": encrypted_input}, limits)
    request = NewStart(
        saga=name,
        version=requested_version,
        run_id=run_id,
        key=checked_key(key, text_bytes),
        encrypted_input=encrypted_input,
        plain_input=plain_input,
        must_be_known=isinstance(saga, str),
        fingerprint=None if isinstance(saga, str) else saga.fingerprint,
    )
    return request, encryption


async def _record_start(
    connection: AsyncConnection, request: NewStart, encryption: PayloadEncryption
) -> RunHandle:
    with caller_connection.translated_errors():
        await caller_connection.check(connection)
        started = await checked_requests.record_start(
            SqlAlchemyTransaction(connection), request, encryption
        )
    if started is None:
        raise _unknown_saga(request.saga, request.version)
    if not started.owner.same_input:
        raise _key_conflict(request, started.owner)
    return RunHandle(
        run_id=parse_run_id(started.owner.run_id),
        saga=request.saga,
        version=started.version,
        key=request.key,
        existing=started.owner.run_id != request.run_id,
    )


@cache
def _limits_from_environment() -> tuple[BodyLimits, int]:
    return _limits_from(Settings.load())


def _limits_from(settings: Settings) -> tuple[BodyLimits, int]:
    """Return the limits of a body, and the bytes of a text."""
    return body_limits(settings), settings.max_request_text_bytes


def _unknown_saga(name: str, version: int | None) -> NotFound:
    description = f"{name!r}" if version is None else f"{name!r} version {version}"
    return NotFound(
        f"No worker has ever loaded saga {description}. Check the name, or start a worker with it."
    )


def _key_conflict(request: NewStart, holder: KeyOwner) -> Conflict:
    if holder.decryption_error:
        return Conflict(
            f"Key {request.key!r} belongs to run {holder.run_id}, whose input"
            f" {holder.decryption_error}."
        )
    return Conflict(f"Key {request.key!r} belongs to run {holder.run_id}, with another input.")
