"""Which definition a recorded start is pinned to, while workers come and go."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

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
from tests.kit.pinned_definitions import (
    SECOND,
    A,
    B,
    record_start,
    register_as_worker,
    was_seen_an_hour_ago,
)
from tests.kit.stored_runs import run_id
from tests.kit.stores import RequesterStore

WHOLE = ReadLimits(10_000, 10_000, 1_000)


async def takes(store: Store, ids: list[int]) -> int:
    """How many starts a worker takes that has these definitions."""
    async with store.transaction() as tx:
        found = await tx.take_starts(
            {"buy": 5}, definition_ids=ids, limit=5, body_limits=WHOLE, max_bytes=1_000_000
        )
    return len(found)


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
    await register_as_worker(store, A)
    async with store.transaction() as tx:
        assert await tx.record_start(wanted(A, run_id=run_id(await tx.database_now())))
    assert await register_as_worker(store, B)


async def test_after_a_rollback_a_start_is_pinned_to_the_steps_loaded_last(
    store: RequesterStore,
):
    for saga in (A, B):
        await register_as_worker(store, saga)
    ids = await register_as_worker(store, A)
    async with store.transaction() as tx:
        newest = wanted(A, fingerprint=None, version=None, must_be_known=True)
        its_id = run_id(await tx.database_now())
        assert await tx.record_start(replace(newest, run_id=its_id))
    assert await takes(store, ids) == 1


async def test_after_a_rollback_a_start_by_name_gets_the_version_of_the_workers(
    database: Database,
):
    await register_as_worker(SqlStore(database), A, SECOND)
    assert await record_start(database, "buy") == 2
    await was_seen_an_hour_ago(database, SECOND)
    assert await record_start(database, "buy") == 1
    assert await record_start(database, "buy", version=2) == 2


async def test_without_workers_a_start_by_name_gets_the_version_seen_last(
    database: Database,
):
    ids = await register_as_worker(SqlStore(database), A, SECOND)
    for saga in (A, SECOND, SECOND):
        await was_seen_an_hour_ago(database, saga)
    assert await record_start(database, "buy") == 1
    await was_seen_an_hour_ago(database, A)
    assert await record_start(database, "buy") == 2, "seen at the same time: the newest"
    assert await definitions_seen(database, ids) == 2
    assert await record_start(database, "buy") == 2


async def test_a_start_is_accepted_after_a_long_outage_of_the_database(database: Database):
    """No worker could write that it is there; each start is of what was seen last."""
    await register_as_worker(SqlStore(database), A, SECOND)
    for saga in (A, SECOND):
        await was_seen_an_hour_ago(database, saga)
    assert await record_start(database, "buy") == 2
    assert await record_start(database, A) == 1
    assert await record_start(database, SECOND) == 2
    assert await record_start(database, "buy", version=1) == 1


async def test_after_a_rollback_a_start_by_name_gets_a_version_seen_two_minutes_ago(
    database: Database,
):
    """A worker counts as there until then, and no longer."""
    await register_as_worker(SqlStore(database), A, SECOND)
    for seconds, version in ((60, 2), (61, 1)):
        async with database.transaction() as tx:
            passed = text(
                "UPDATE saga_engine.definition SET"
                " present_until = present_until - make_interval(secs => CAST(:passed AS integer)),"
                " last_seen = last_seen - make_interval(secs => CAST(:passed AS integer))"
            )
            await tx.execute(passed, {"passed": seconds})
            await definitions.register(tx, [A])
        assert await record_start(database, "buy") == version


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
    ids = await register_as_worker(store, A)
    async with store.transaction() as tx:
        await tx.refresh_presence(ids)
        await tx.refresh_presence([])
    assert len(await register_as_worker(store, A)) == 1


async def test_a_start_with_unknown_steps_is_refused(database: Database):
    await register_as_worker(SqlStore(database), A)
    with pytest.raises(ConfigurationError, match=r"'buy' version 1 .* next version"):
        await record_start(database, B)


async def test_a_start_with_replaced_steps_is_refused(
    database: Database,
):
    await register_as_worker(SqlStore(database), A)
    await was_seen_an_hour_ago(database, A)
    assert await record_start(database, A) == 1, "no worker is there; none has other steps"
    await register_as_worker(SqlStore(database), B)
    with pytest.raises(ConfigurationError, match=r"'buy' version 1 .* next version"):
        await record_start(database, A)
    assert await record_start(database, B) == 1


async def test_an_unknown_version_can_be_started_only_with_its_definition(
    database: Database,
):
    await register_as_worker(SqlStore(database), A)
    assert await record_start(database, SECOND) == 2
    with pytest.raises(NotFound, match="'buy' version 2"):
        await record_start(database, "buy", version=2)
    async with database.transaction() as tx:
        unknown = wanted(A, version=999, must_be_known=True, fingerprint="junk")
        assert await checked_requests.record_start(tx, unknown) is None
