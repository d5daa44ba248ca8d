"""Which definition a recorded start is pinned to, while workers come and go."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from saga_engine.client import start_in_transaction
from saga_engine.errors import ConfigurationError, NotFound, StoreRefused
from saga_engine.identifiers import uuid7
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings
from saga_engine.store import (
    audit,
    backlog_counts,
    checked_requests,
    definitions,
    pending_requests,
    request_queue,
    run_queries,
    runs,
    stranded_starts,
)
from saga_engine.store.audit import ActionKind, OperatorAction
from saga_engine.store.checked_requests import NewStart
from saga_engine.store.database import Database
from saga_engine.store.pending_requests import NewRequest, ReadLimits
from tests.kit.stored_runs import BOTH_DATABASES, run_id

WHOLE = ReadLimits(10_000, 10_000, 1_000)


def buying(command: str = "stock.take", version: int = 1) -> Saga:
    saga = Saga("buy", version=version, input=dict)

    @saga.step(command=command, reply=dict)
    def take(order: dict) -> dict:
        return order

    return saga


A, B, SECOND = buying(), buying("stock.grab"), buying("stock.order", 2)


async def load(database: Database, *sagas: Saga) -> list[int]:
    """Register as a worker does that starts."""
    async with database.transaction() as tx:
        return list((await definitions.register(tx, sagas)).values())


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


async def takes(database: Database, ids: list[int]) -> int:
    """How many starts a worker takes that has these definitions."""
    async with database.transaction() as tx:
        found = await request_queue.take_starts(
            tx, {"buy": 5}, definition_ids=ids, limit=5, body_limits=WHOLE, max_bytes=1_000_000
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


@BOTH_DATABASES
async def test_a_start_that_waits_for_other_steps_keeps_no_worker_from_starting(
    database: Database,
):
    await load(database, A)
    async with database.transaction() as tx:
        assert await checked_requests.record_start(
            tx, wanted(A, run_id=run_id(await runs.database_now(tx)))
        )
    assert await load(database, B)


@BOTH_DATABASES
async def test_after_a_rollback_of_steps_a_start_is_pinned_to_those_that_were_loaded_last(
    database: Database,
):
    for saga in (A, B):
        await load(database, saga)
    ids = await load(database, A)
    async with database.transaction() as tx:
        newest = wanted(A, fingerprint=None, version=None, must_be_known=True)
        its_id = run_id(await runs.database_now(tx))
        assert await checked_requests.record_start(tx, replace(newest, run_id=its_id))
    assert await takes(database, ids) == 1


async def test_after_a_rollback_a_start_by_name_is_of_the_version_that_workers_have(
    database: Database,
):
    await load(database, A, SECOND)
    assert await record(database, "buy") == 2
    await was_seen_an_hour_ago(database, SECOND)
    assert await record(database, "buy") == 1
    assert await record(database, "buy", version=2) == 2


async def test_while_no_worker_runs_a_start_by_name_is_of_the_version_seen_last(
    database: Database,
):
    ids = await load(database, A, SECOND)
    for saga in (A, SECOND, SECOND):
        await was_seen_an_hour_ago(database, saga)
    assert await record(database, "buy") == 1
    await was_seen_an_hour_ago(database, A)
    assert await record(database, "buy") == 2, "seen at the same time: the newest"
    assert await definitions_seen(database, ids) == 2
    assert await record(database, "buy") == 2


async def test_a_database_that_was_away_for_long_keeps_no_start_out(database: Database):
    """No worker could write that it is there; each start is of what was seen last."""
    await load(database, A, SECOND)
    for saga in (A, SECOND):
        await was_seen_an_hour_ago(database, saga)
    assert await record(database, "buy") == 2
    assert await record(database, A) == 1
    assert await record(database, SECOND) == 2
    assert await record(database, "buy", version=1) == 1


async def test_after_a_rollback_a_start_by_name_is_of_the_version_that_left_for_two_minutes(
    database: Database,
):
    """A worker counts as there until then, and no longer."""
    await load(database, A, SECOND)
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


async def test_a_worker_counts_as_there_for_as_long_as_its_setting_says(database: Database):
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


@BOTH_DATABASES
async def test_what_was_seen_just_now_is_not_written_again(database: Database):
    ids = await load(database, A)
    async with database.transaction() as tx:
        await definitions.refresh_presence(tx, ids)
        await definitions.refresh_presence(tx, [])
    assert len(await load(database, A)) == 1


async def test_a_start_with_other_steps_than_are_on_record_is_refused_at_once(database: Database):
    await load(database, A)
    with pytest.raises(ConfigurationError, match=r"'buy' version 1 .* next version"):
        await record(database, B)


async def test_a_start_with_the_steps_that_a_rollout_has_replaced_is_refused_at_once(
    database: Database,
):
    await load(database, A)
    await was_seen_an_hour_ago(database, A)
    assert await record(database, A) == 1, "no worker is there; none has other steps"
    await load(database, B)
    with pytest.raises(ConfigurationError, match=r"'buy' version 1 .* next version"):
        await record(database, A)
    assert await record(database, B) == 1


async def test_a_version_that_is_not_on_record_is_started_by_its_definition_only(
    database: Database,
):
    await load(database, A)
    assert await record(database, SECOND) == 2
    with pytest.raises(NotFound, match="'buy' version 2"):
        await record(database, "buy", version=2)
    async with database.transaction() as tx:
        unknown = wanted(A, version=999, must_be_known=True, fingerprint="junk")
        assert await checked_requests.record_start(tx, unknown) is None


async def test_starts_that_no_worker_can_begin_are_counted(database: Database):
    await load(database, A, SECOND)
    for saga in (A, A, SECOND):
        await record(database, saga)
    async with database.transaction() as tx:
        assert (await backlog_counts.count_backlog(tx)).starts_stranded == {}
    await was_seen_an_hour_ago(database, A)
    async with database.transaction() as tx:
        counts = await backlog_counts.count_backlog(tx)
    assert (counts.starts_stranded, counts.starts_waiting) == ({"buy": 2}, {"buy": 3})
    async with database.transaction() as tx:
        assert (await backlog_counts.count_backlog(tx, count_limit=1)).starts_stranded == {"buy": 1}


async def cancelled(
    database: Database, run_id: str, saga_act: OperatorAction | None = None
) -> bool:
    act = saga_act or OperatorAction(
        id=str(uuid7()),
        operator="ann",
        action=ActionKind.CANCEL,
        reason="it is not wanted",
        run_id=run_id,
    )
    async with database.transaction() as tx:
        await audit.record(tx, [act])
        return await stranded_starts.cancel_start(tx, run_id, act.id)


async def test_a_start_that_no_worker_can_begin_is_found_and_cancelled_on_record(
    database: Database,
):
    await load(database, A)
    await was_seen_an_hour_ago(database, A)
    async with database.transaction() as tx:
        run_id = str((await start_in_transaction(tx.connection, A, {}, key="o-1")).run_id)
        other = str((await start_in_transaction(tx.connection, A, {}, key="o-2")).run_id)
        await pending_requests.record(
            tx,
            [
                NewRequest(
                    kind="cancel",
                    run_id=run_id,
                    body={"operator": "a", "reason": "b"},
                    awaits_start=True,
                )
            ],
        )
        [found] = example("the starts that no worker can begin")
        [row] = (await tx.execute(text(found))).all()
        assert tuple(row)[:4] == ("buy", 1, A.fingerprint, 2)
        [found] = example("the runs that no worker can begin")
        assert [str(row.run_id) for row in await tx.execute(text(found))] == [run_id, other]
    assert await cancelled(database, run_id)
    async with database.transaction() as tx:
        query = text(
            "SELECT kind, run_id::text, awaits_start FROM saga_engine.pending_request ORDER BY id"
        )
        left = [tuple(row) for row in await tx.execute(query)]
        assert left == [("start", other, False), ("cancel", run_id, False)]
        assert await run_queries.find_by_key(tx, "buy", "o-1") is None
        assert await run_queries.find_by_key(tx, "buy", "o-2") == other
        [act] = await audit.list_for_run(tx, run_id)
        assert (act.operator, act.reason, act.outcome) == ("ann", "it is not wanted", "accepted")
        assert (act.message or "").startswith("The run did not begin: no worker had its definition")
    assert not await cancelled(database, run_id)  # there is none any more


async def test_a_start_that_came_over_the_broker_and_may_come_again_is_not_deleted(
    database: Database,
):
    await load(database, A)
    await was_seen_an_hour_ago(database, A)
    run_id = str(uuid7())
    async with database.transaction() as tx:
        start = NewRequest(
            kind="start",
            run_id=run_id,
            body={"input": {}},
            saga="buy",
            version=1,
            fingerprint=A.fingerprint,
        )
        await pending_requests.record(tx, [start])
    assert not await cancelled(database, run_id)
    async with database.transaction() as tx:
        assert set(await pending_requests.find_starts(tx, [run_id])) == {run_id}


async def test_a_worker_that_speaks_seldom_keeps_its_starts_from_being_deleted(database: Database):
    seldom = definitions.presence_policy(
        Settings(worker_heartbeat_interval=900, worker_heartbeat_timeout=2700)
    )
    async with database.transaction() as tx:
        await definitions.register(tx, [A], seldom)
        old = text("UPDATE saga_engine.definition SET last_seen = now() - interval '14 minutes'")
        await tx.execute(old)
        run_id = str((await start_in_transaction(tx.connection, A, {})).run_id)
    assert not await cancelled(database, run_id)


async def test_a_start_that_a_worker_can_begin_is_not_cancelled_without_one(database: Database):
    await load(database, A)
    await load(database, B)
    await was_seen_an_hour_ago(database, B)
    async with database.transaction() as tx:
        run_id = str((await start_in_transaction(tx.connection, A, {}, key="o-1")).run_id)
    assert not await cancelled(database, run_id)
    async with database.transaction() as tx:
        assert set(await pending_requests.find_starts(tx, [run_id])) == {run_id}
        assert await run_queries.find_by_key(tx, "buy", "o-1") == run_id
        assert [each.outcome for each in await audit.list_for_run(tx, run_id)] == [None]


@pytest.mark.parametrize("changes", [{"run_id": str(uuid7())}, {"action": ActionKind.SKIP}])
async def test_a_start_is_cancelled_only_with_an_act_of_that_run_on_record(
    database: Database, changes: dict[str, Any]
):
    await load(database, A)
    await was_seen_an_hour_ago(database, A)
    async with database.transaction() as tx:
        run_id = str((await start_in_transaction(tx.connection, A, {})).run_id)
    act = OperatorAction(
        id=str(uuid7()),
        operator="ann",
        action=ActionKind.CANCEL,
        reason="it is not wanted",
        run_id=run_id,
    )
    with pytest.raises(StoreRefused):
        await cancelled(database, run_id, replace(act, **changes))
    assert await cancelled(database, run_id, act)
    with pytest.raises(StoreRefused):  # it is decided
        await cancelled(database, run_id, act)


HANDBOOK = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()


def example(name: str) -> list[str]:
    """The statements of an example."""
    block = HANDBOOK.split(f"<!-- example: {name} -->\n```sql\n")[1].split("```")[0]
    return [each for each in block.split(";\n") if each.strip()]
