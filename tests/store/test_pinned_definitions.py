"""Which definition a recorded start is pinned to, while workers come and go."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from saga_engine.client import start_in_transaction
from saga_engine.errors import ConfigurationError, NotFound
from saga_engine.identifiers import uuid7
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings
from saga_engine.store import (
    checked_requests,
    definitions,
)
from saga_engine.store.checked_requests import NewStart
from saga_engine.store.database import Database
from saga_engine.store.interfaces import Store
from saga_engine.store.pending_requests import ReadLimits
from saga_engine.store.sql_store import SqlStore
from tests.kit.stored_runs import run_id
from tests.kit.stores import RequesterStore

WHOLE = ReadLimits(10_000, 10_000, 1_000)


def buying(command: str = "stock.take", version: int = 1) -> Saga:
    saga = Saga("buy", version=version, input=dict)

    @saga.step(command=command, reply=dict)
    def take(order: dict) -> dict:
        return order

    return saga


A, B, SECOND = buying(), buying("stock.grab"), buying("stock.order", 2)


async def load(store: Store, *sagas: Saga) -> list[int]:
    """Register as a worker does that starts."""
    async with store.transaction() as tx:
        return list((await tx.register_definitions(sagas)).values())


async def was_seen_an_hour_ago(database: Database, saga: Saga) -> None:
    async with database.transaction() as tx:
        changed = await tx.execute(
            text(
                "UPDATE saga_engine.definition SET last_seen = last_seen - interval '1 hour',"
                " present_until = present_until - interval '1 hour'"
                " WHERE fingerprint = :fingerprint"
            ),
            {"fingerprint": saga.fingerprint},
        )
        assert changed.rowcount == 1


async def takes(store: Store, ids: list[int]) -> int:
    """How many starts a worker takes that has these definitions."""
    async with store.transaction() as tx:
        found = await tx.take_starts(
            {"buy": 5}, definition_ids=ids, limit=5, body_limits=WHOLE, max_bytes=1_000_000
        )
    return len(found)


async def record(database: Database, saga: str | Saga, **more: Any) -> int | None:
    async with database.transaction() as tx:
        return (await start_in_transaction(tx.connection, saga, {"n": 1}, **more)).version


def wanted(saga: Saga, **more: Any) -> NewStart:
    mark = saga.fingerprint
    start = NewStart(
        saga="buy",
        version=1,
        run_id=str(uuid7()),
        key=None,
        encrypted_input={},
        plain_input={},
        must_be_known=False,
        fingerprint=mark,
    )
    return replace(start, **more)


async def test_a_pending_start_with_other_steps_does_not_stop_a_worker(
    store: RequesterStore,
):
    await load(store, A)
    async with store.transaction() as tx:
        assert await tx.record_start(wanted(A, run_id=run_id(await tx.database_now())))
    assert await load(store, B)


async def test_after_a_rollback_a_start_is_pinned_to_the_steps_loaded_last(
    store: RequesterStore,
):
    for saga in (A, B):
        await load(store, saga)
    ids = await load(store, A)
    async with store.transaction() as tx:
        newest = wanted(A, fingerprint=None, version=None, must_be_known=True)
        its_id = run_id(await tx.database_now())
        assert await tx.record_start(replace(newest, run_id=its_id))
    assert await takes(store, ids) == 1


async def test_after_a_rollback_a_start_by_name_gets_the_version_of_the_workers(
    database: Database,
):
    await load(SqlStore(database), A, SECOND)
    assert await record(database, "buy") == 2
    await was_seen_an_hour_ago(database, SECOND)
    assert await record(database, "buy") == 1
    assert await record(database, "buy", version=2) == 2


async def test_without_workers_a_start_by_name_gets_the_version_seen_last(
    database: Database,
):
    ids = await load(SqlStore(database), A, SECOND)
    for saga in (A, SECOND, SECOND):
        await was_seen_an_hour_ago(database, saga)
    assert await record(database, "buy") == 1
    await was_seen_an_hour_ago(database, A)
    assert await record(database, "buy") == 2, "seen at the same time: the newest"
    assert await definitions_seen(database, ids) == 2
    assert await record(database, "buy") == 2


async def test_a_start_is_accepted_after_a_long_outage_of_the_database(database: Database):
    """No worker could write that it is there; each start is of what was seen last."""
    await load(SqlStore(database), A, SECOND)
    for saga in (A, SECOND):
        await was_seen_an_hour_ago(database, saga)
    assert await record(database, "buy") == 2
    assert await record(database, A) == 1
    assert await record(database, SECOND) == 2
    assert await record(database, "buy", version=1) == 1


async def test_after_a_rollback_a_start_by_name_gets_a_version_seen_two_minutes_ago(
    database: Database,
):
    """A worker counts as there until then, and no longer."""
    await load(SqlStore(database), A, SECOND)
    for seconds, version in ((60, 2), (61, 1)):
        async with database.transaction() as tx:
            passed = text(
                "UPDATE saga_engine.definition SET"
                " present_until = present_until - make_interval(secs => CAST(:passed AS integer)),"
                " last_seen = last_seen - make_interval(secs => CAST(:passed AS integer))"
            )
            await tx.execute(passed, {"passed": seconds})
            await definitions.register(tx, [A])
        assert await record(database, "buy") == version


async def test_a_definition_is_present_for_worker_heartbeat_timeout(database: Database):
    presence = definitions.presence_policy(
        Settings(worker_heartbeat_interval=7, worker_heartbeat_timeout=300)
    )
    async with database.transaction() as tx:
        await definitions.register(tx, [A], presence)
        lasts = text("SELECT (present_until - last_seen)::text FROM saga_engine.definition")
        assert (await tx.execute(lasts)).scalar_one() == "00:05:00"
    assert presence.refresh_after < timedelta(seconds=7)


async def definitions_seen(database: Database, ids: list[int]) -> int:
    """Refresh as a worker does; how many are written."""
    async with database.transaction() as tx:
        await definitions.refresh_presence(tx, ids)
    async with database.transaction() as tx:
        query = (
            "SELECT count(*) FROM saga_engine.definition WHERE last_seen > now() - interval '60 s'"
        )
        return int((await tx.execute(text(query))).scalar_one())


async def test_a_fresh_presence_is_not_written_again(store: RequesterStore):
    ids = await load(store, A)
    async with store.transaction() as tx:
        await tx.refresh_presence(ids)
        await tx.refresh_presence([])
    assert len(await load(store, A)) == 1


async def test_a_start_with_unknown_steps_is_refused(database: Database):
    await load(SqlStore(database), A)
    with pytest.raises(ConfigurationError, match=r"'buy' version 1 .* next version"):
        await record(database, B)


async def test_a_start_with_replaced_steps_is_refused(
    database: Database,
):
    await load(SqlStore(database), A)
    await was_seen_an_hour_ago(database, A)
    assert await record(database, A) == 1, "no worker is there; none has other steps"
    await load(SqlStore(database), B)
    with pytest.raises(ConfigurationError, match=r"'buy' version 1 .* next version"):
        await record(database, A)
    assert await record(database, B) == 1


async def test_an_unknown_version_can_be_started_only_with_its_definition(
    database: Database,
):
    await load(SqlStore(database), A)
    assert await record(database, SECOND) == 2
    with pytest.raises(NotFound, match="'buy' version 2"):
        await record(database, "buy", version=2)
    async with database.transaction() as tx:
        unknown = wanted(A, version=999, must_be_known=True, fingerprint="junk")
        assert await checked_requests.record_start(tx, unknown) is None
