"""
Start a run inside the caller's own transaction: the order and its saga are committed together.

The start is recorded in the engine's tables over the caller's connection, so nothing is sent and no
broker is needed; a worker takes it in as soon as it sees the commit. Nothing here commits.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.client.handle import Handle
from saga_engine.client.inputs import (
    input_json,
    key_text,
    name_and_version,
    refuse_beyond,
    run_uuid,
)
from saga_engine.encryption.configuration import sealing_of, sealing_of_environment
from saga_engine.errors import Conflict, NotFound
from saga_engine.identifiers import uuid7
from saga_engine.payload.encryption import input_place
from saga_engine.payload.limits import Limits
from saga_engine.postgres import encoding
from saga_engine.postgres.sqlalchemy_errors import translated
from saga_engine.protocol.limits import limits_of
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings
from saga_engine.store import checked_requests
from saga_engine.store.business_keys import KeyHeld
from saga_engine.store.checked_requests import StartWanted
from saga_engine.store.database import Transaction


async def start_in(
    connection: AsyncConnection,
    saga: str | Saga,
    input: object,  # noqa: A002 - what the saga calls it too
    *,
    key: str | None = None,
    version: int | None = None,
    settings: Settings | None = None,
) -> Handle:
    """
    Record the start of a run in the caller's transaction. It is accepted when that commits.

        async with engine.begin() as connection:
            await connection.execute(insert(orders).values(id="o-1"))
            handle = await start_in(connection, "place-order", order, key="o-1")

    With a session, pass `await session.connection()`. Two that want one key wait for each other.

    Args:
        connection: to the engine's database, in a transaction.
        saga: its name, or its definition, with which the input is validated.
        input: a pydantic model, or plain JSON.
        key: a business key, unique for each saga: with the same input it names the same run.
        version: when left out, the newest that workers have at the time of the call, or else the
            one that they had last. A worker counts for `worker_absent` seconds after it has written
            that it has a version. The run begins as that version, whatever is deployed before its
            turn comes.
        settings: its codec and limits; the environment's, read once, when left out.

    Raises:
        InvalidInput: the input does not fit the saga, cannot be stored, or is beyond a limit that a
            worker holds it to: `body_bytes`, `body_depth`, `body_values`; for the key `text_bytes`.
        NotFound: no worker has ever loaded a saga of that name; given its definition, that is not
            asked, so that a service may be rolled out before the worker.
        Conflict: the key belongs to a run with another input.
        ConfigurationError: the codec is not usable, the database's encoding is not UTF8, or
            workers have other steps under that version.
        StoreRefused: the role of this connection may not start that saga.
        SerializationFailure: at a stricter isolation level, another transaction took the key first:
            roll back and repeat the whole transaction.
        StoreError: the database refused, or is not the engine's.
    """
    name, number = name_and_version(saga, version)
    sealing = sealing_of(settings) if settings else sealing_of_environment()
    run_id, given = str(uuid7()), input_json(saga, input)
    sealed = sealing.sealed(given, input_place(name, run_id))
    limits, text_bytes = _limits_in(settings) if settings else _limits_of_environment()
    refuse_beyond({"input": sealed}, limits)
    wanted = StartWanted(
        *(name, number, run_id, key_text(key, text_bytes), sealed, given),
        known=isinstance(saga, str),
        fingerprint=None if isinstance(saga, str) else saga.fingerprint,
    )
    with _told_as_ours():
        await encoding.check_opened(connection, "of the caller's connection")
        started = await checked_requests.start(Transaction(connection), wanted, sealing)
    if started is None:
        raise _unknown(name, number)
    if not started.holder.same_input:
        raise _conflict(wanted, started.holder)
    holder = started.holder.run_id
    return Handle(run_uuid(holder), name, started.version, key, existing=holder != run_id)


@cache
def _limits_of_environment() -> tuple[Limits, int]:
    return _limits_in(Settings.load())


def _limits_in(settings: Settings) -> tuple[Limits, int]:
    """Give the limits of a body, and the bytes of a text."""
    return limits_of(settings), settings.text_bytes


@contextmanager
def _told_as_ours() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        ours = translated(error, "the caller's connection")
        if ours is None:
            raise
        raise ours from error


def _unknown(name: str, version: int | None) -> NotFound:
    which = f"{name!r}" if version is None else f"{name!r} version {version}"
    return NotFound(
        f"No worker has ever loaded saga {which}. Check the name, or start a worker with it."
    )


def _conflict(wanted: StartWanted, holder: KeyHeld) -> Conflict:
    if holder.problem:
        return Conflict(
            f"Key {wanted.key!r} belongs to run {holder.run_id}, whose input {holder.problem}."
        )
    return Conflict(f"Key {wanted.key!r} belongs to run {holder.run_id}, with another input.")
