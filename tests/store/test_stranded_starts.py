"""Pending starts of a definition that no worker has: counted, and cancelled on request."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from saga_engine.client import start_in_transaction
from saga_engine.errors import StoreRefused
from saga_engine.identifiers import uuid7
from saga_engine.settings import Settings
from saga_engine.store import (
    audit,
    backlog_counts,
    definitions,
    pending_requests,
    run_queries,
    stranded_starts,
)
from saga_engine.store.audit import ActionKind, OperatorAction
from saga_engine.store.database import Database
from saga_engine.store.pending_requests import NewRequest, RequestKind
from saga_engine.store.sql_store import SqlStore
from tests.kit.pinned_definitions import (
    SECOND,
    A,
    B,
    record_start,
    register_as_worker,
    was_seen_an_hour_ago,
)


async def test_stranded_starts_are_counted(database: Database):
    await register_as_worker(SqlStore(database), A, SECOND)
    for saga in (A, A, SECOND):
        await record_start(database, saga)
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


async def test_a_stranded_start_is_found_and_cancelled_with_an_audit_record(
    database: Database,
):
    await register_as_worker(SqlStore(database), A)
    await was_seen_an_hour_ago(database, A)
    async with database.transaction() as tx:
        run_id = str((await start_in_transaction(tx.connection, A, {}, key="o-1")).run_id)
        other = str((await start_in_transaction(tx.connection, A, {}, key="o-2")).run_id)
        await pending_requests.record(
            tx,
            [
                NewRequest(
                    kind=RequestKind.CANCEL,
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


async def test_a_start_that_the_broker_may_deliver_again_is_not_deleted(
    database: Database,
):
    await register_as_worker(SqlStore(database), A)
    await was_seen_an_hour_ago(database, A)
    run_id = str(uuid7())
    async with database.transaction() as tx:
        start = NewRequest(
            kind=RequestKind.START,
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


async def test_a_long_heartbeat_interval_does_not_strand_starts(database: Database):
    seldom = definitions.presence_policy(
        Settings(worker_heartbeat_interval=900, worker_heartbeat_timeout=2700)
    )
    async with database.transaction() as tx:
        await definitions.register(tx, [A], seldom)
        old = text("UPDATE saga_engine.definition SET last_seen = now() - interval '14 minutes'")
        await tx.execute(old)
        run_id = str((await start_in_transaction(tx.connection, A, {})).run_id)
    assert not await cancelled(database, run_id)


async def test_a_start_that_a_worker_can_process_is_not_deleted(database: Database):
    await register_as_worker(SqlStore(database), A)
    await register_as_worker(SqlStore(database), B)
    await was_seen_an_hour_ago(database, B)
    async with database.transaction() as tx:
        run_id = str((await start_in_transaction(tx.connection, A, {}, key="o-1")).run_id)
    assert not await cancelled(database, run_id)
    async with database.transaction() as tx:
        assert set(await pending_requests.find_starts(tx, [run_id])) == {run_id}
        assert await run_queries.find_by_key(tx, "buy", "o-1") == run_id
        assert [each.outcome for each in await audit.list_for_run(tx, run_id)] == [None]


@pytest.mark.parametrize("changes", [{"run_id": str(uuid7())}, {"action": ActionKind.SKIP}])
async def test_a_start_is_cancelled_only_with_a_recorded_action_for_its_run(
    database: Database, changes: dict[str, Any]
):
    await register_as_worker(SqlStore(database), A)
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
