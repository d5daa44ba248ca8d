"""
Start a run inside the caller's own transaction: the order and its saga are committed together.

The start is recorded in the engine's tables over the caller's connection, so nothing is sent and no
broker is needed; a worker takes it in as soon as it sees the commit. Nothing here commits.
"""

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.client.given import input_json, key_text, name_and_version, run_uuid
from saga_engine.client.handle import Handle
from saga_engine.errors import Conflict, NotFound
from saga_engine.identifiers import uuid7
from saga_engine.saga.definition import Saga
from saga_engine.saga.trigger import Start, trigger_data
from saga_engine.saga.vocabulary import Json
from saga_engine.store import definitions, inbox, keys
from saga_engine.store.inbox import Item
from saga_engine.store.keys import KeyWanted
from saga_engine.store.sqlstate import translated


async def start_in(
    connection: AsyncConnection,
    saga: str | Saga,
    input: object,  # noqa: A002 - what the saga calls it too
    *,
    key: str | None = None,
    version: int | None = None,
) -> Handle:
    """
    Record the start of a run in the caller's transaction.

        async with engine.begin() as connection:
            await connection.execute(insert(orders).values(id="o-1"))
            handle = await start_in(connection, "place-order", order, key="o-1")

    With a session, pass `await session.connection()`. Two transactions that want the same key at
    once wait for each other.

    Args:
        connection: to the engine's database, in a transaction.
        saga: its name, or its definition, with which the input is validated.
        input: a pydantic model, or plain JSON.
        key: a business key, unique for each saga: with the same input it names the same run.
        version: the newest a worker knows when left out.

    Raises:
        InvalidInput: the input does not fit the saga, or cannot be stored.
        NotFound: no worker has ever loaded a saga of that name; given its definition, that is not
            asked, so that a service may be rolled out before the worker.
        Conflict: the key belongs to a run with another input.
        StoreError: the database refused, or is not the engine's.
    """
    name, number = name_and_version(saga, version)
    start = Start(str(uuid7()), key_text(key), input_json(saga, input))
    try:
        if isinstance(saga, str):
            await _look_for(connection, name, number)
        holder = await _holder(connection, name, start.run_id, start.key, start.input)
        if holder == start.run_id:
            kind, body = trigger_data(start)
            await inbox.record(connection, [Item(kind, holder, body, saga=name, version=number)])
    except SQLAlchemyError as error:
        ours = translated(error, "the caller's connection")
        if ours is None:
            raise
        raise ours from error
    return Handle(run_uuid(holder), name, number, key, existing=holder != start.run_id)


async def _look_for(connection: AsyncConnection, name: str, version: int | None) -> None:
    for each in await definitions.known(connection):
        if each.name == name and version in (None, each.version):
            return
    which = f"{name!r}" if version is None else f"{name!r} version {version}"
    raise NotFound(
        f"No worker has ever loaded saga {which}. Check the name, or start a worker with it."
    )


async def _holder(
    connection: AsyncConnection, saga: str, run_id: str, key: str | None, given: Json
) -> str:
    if key is None:
        return run_id
    [held] = await keys.reserve(connection, [KeyWanted(saga, key, run_id, given)])
    if not held.same_input:
        raise Conflict(f"Key {key!r} belongs to run {held.run_id}, with another input.")
    return held.run_id
