"""The statements that run all the time read no row of what others have left behind."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from saga_engine.settings import Settings
from saga_engine.store import (
    definitions,
    due_runs,
    pending_requests,
    recovery,
    request_queue,
    run_queries,
)
from saga_engine.store.database import Database
from saga_engine.store.migrate import upgrade
from saga_engine.store.pending_requests import NewRequest, RequestKind
from saga_engine.store.sql_store import SqlStoreTransaction
from saga_engine.vocabulary import Status
from tests.kit.read_blocks import BLOCKS, ONE_MORE
from tests.kit.stored_runs import ORDERS, insert_run, run_id

LEFT = 20_000

OTHER = text(
    "INSERT INTO saga_engine.definition (name, version, fingerprint, document)"
    " VALUES ('another', 1, 'x', '{}') RETURNING id"
)
OVERDUE = text(
    """
    INSERT INTO saga_engine.run (run_id, started_at, wake_at, definition_id, status, key)
    SELECT CAST(overlay(CAST(r.run_id AS text) PLACING lpad(to_hex(n), 12, '0') FROM 25) AS uuid),
        r.started_at, clock_timestamp() - interval '1 hour', :other, r.status, 'key-' || n
    FROM saga_engine.run AS r, generate_series(1, :number) AS n
    WHERE r.run_id = CAST(:run_id AS uuid)"""
)
WAITING = text(
    """
    INSERT INTO saga_engine.pending_request
        (run_id, kind, saga, version, fingerprint, definition_id, awaits_start, not_before, body)
    SELECT gen_random_uuid(), w.kind, w.saga, w.version, w.fingerprint, w.definition_id,
        w.awaits_start,
        clock_timestamp() + w.pause, '{}'
    FROM generate_series(1, :number) AS n, (VALUES
        ('start', 'place-order', 2, NULL, NULL, false, interval '-1 h'),
        ('start', 'place-order', 1, 'another', NULL, false, interval '-1 h'),
        ('start', 'another', NULL, NULL, NULL, false, interval '-1 h'),
        ('start', 'place-order', NULL, NULL, NULL, false, interval '1 h'),
        ('reply', NULL, NULL, NULL, 99, false, interval '-1 h'),
        ('cancel', NULL, NULL, NULL, NULL, true, interval '-1 h'),
        ('reply', NULL, NULL, NULL, NULL, false, interval '1 h')
        ) AS w(kind, saga, version, fingerprint, definition_id, awaits_start, pause)"""
)

FINISHED = text(
    """
    INSERT INTO saga_engine.run (run_id, started_at, finished_at, definition_id, status)
    SELECT CAST(overlay(CAST(r.run_id AS text) PLACING lpad(to_hex(n), 12, '0') FROM 25) AS uuid),
        r.started_at, clock_timestamp(), r.definition_id, 'completed'
    FROM saga_engine.run AS r, generate_series(1, :number) AS n
    WHERE r.run_id = CAST(:run_id AS uuid)"""
)

JOURNALS = text(
    """
    INSERT INTO saga_engine.journal (run_id, revision, recorded_at, position, events)
    SELECT r.run_id, j.revision, j.recorded_at, saga_engine.draw_positions(2),
        jsonb_set(j.events, '{0,data,run_id}', to_jsonb(r.run_id))
    FROM saga_engine.journal AS j, saga_engine.run AS r
    WHERE j.run_id = CAST(:run_id AS uuid) AND r.run_id <> j.run_id
    ORDER BY r.run_id LIMIT 20"""
)


async def anything(tx, number: int) -> list[bool]:
    return [True] if await request_queue.has_work(tx, ["place-order"], [number]) else []


async def claimed(tx, number: int) -> list[str]:
    due = await due_runs.claim_due(tx, [number], 200, lease=timedelta(seconds=-1))
    return due.run_ids


POLLED = {
    "what is due": claimed,
    "the names of what is due": lambda tx, number: due_runs.due_run_ids(tx, [number], 200),
    "what will be due": lambda tx, number: due_runs.due_within(
        tx, {number: timedelta(minutes=1)}, 1000
    ),
    "whether anything waits": anything,
    "which sagas wait": lambda tx, number: request_queue.sagas_with_starts(
        tx, ["place-order"], [number]
    ),
    "the starts": lambda tx, number: request_queue.take_starts(
        tx, {"place-order": 100}, definition_ids=[number], limit=100
    ),
    "the requests": lambda tx, number: request_queue.take(tx, definition_ids=[number], limit=100),
    "a changed definition": lambda tx, _: definitions.register(tx, [ORDERS]),
    "the runs of a rare saga": lambda tx, _: run_queries.list_runs(
        tx, limit=50, saga="place-order"
    ),
}


async def made(postgres, name: str, left: int):
    """A database in which some things wait for us, and *left* of each kind for others."""
    url = await postgres.create_database(name)
    await upgrade(url)
    patient = Settings(database_transaction_timeout=120)
    async with Database(url, patient) as database, database.transaction() as tx:
        number = (await definitions.register(tx, [ORDERS]))[ORDERS.name, ORDERS.version]
        other = (await tx.execute(OTHER)).scalar_one()
        ours = (await insert_run(SqlStoreTransaction(tx), number)).run_id
        await tx.execute(OVERDUE, {"run_id": ours, "number": left, "other": other})
        await tx.execute(WAITING, {"number": left})
        await due_runs.defer_wake(tx, ours, timedelta(seconds=-1))
        start = NewRequest(
            kind=RequestKind.START, run_id=run_id(), body={}, saga="place-order", version=1
        )
        await pending_requests.record(
            tx,
            [start, NewRequest(kind=RequestKind.REPLY, run_id=ours, body={}, definition_id=number)],
        )
    return url, number


@pytest.fixture(scope="module")
async def two_databases(postgres):
    names = {"left_nothing": 0, "left_much": LEFT}
    yield [await made(postgres, name, left) for name, left in names.items()]
    for name in names:
        await postgres.drop_database(name)


async def pages(url: str, number: int, polled) -> tuple[int, object]:
    """How many pages a statement touches, of tables and indexes; and what it finds."""
    async with Database(url, Settings()) as database, database.transaction() as tx:
        before = (await tx.execute(BLOCKS)).scalar_one()
        found = await polled(tx, number)
        read = (await tx.execute(BLOCKS)).scalar_one() - before
    return read, len(found)


@pytest.mark.parametrize("name", POLLED)
async def test_polling_reads_no_rows_of_other_definitions(two_databases, name):
    (empty, number), (full, same) = two_databases
    alone, found = await pages(empty, number, POLLED[name])
    beside, found_beside = await pages(full, same, POLLED[name])
    assert found == found_beside
    assert found, "there is something to find"
    assert beside <= alone + ONE_MORE


async def partitions_read(tx, statement, arguments) -> set[str]:
    """The partitions of runs that a part of a statement that changes rows reads."""
    explain = text(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}")
    [plan] = (await tx.execute(explain, arguments)).scalar_one()
    changing = [each for each in plan_nodes(plan["Plan"]) if each["Node Type"] == "ModifyTable"]
    scanned = [
        node["Relation Name"]
        for each in changing
        for part in each["Plans"]
        if part["Parent Relationship"] == "Outer"
        for node in plan_nodes(part)
        if node.get("Relation Name", "").startswith("run_") and node["Actual Loops"]
    ]
    return set(scanned)


def plan_nodes(plan) -> list[dict[str, Any]]:
    return [plan, *(node for each in plan.get("Plans", ()) for node in plan_nodes(each))]


async def test_a_claim_changes_rows_of_the_months_of_its_runs_only(
    database: Database, definition_id: int
):
    async with database.transaction() as tx:
        ours = [(await insert_run(SqlStoreTransaction(tx), definition_id)).run_id for _ in range(3)]
        for each in ours:
            await due_runs.defer_wake(tx, each, timedelta(seconds=-1))
        arguments = {
            "definition_ids": [definition_id],
            "limit": 200,
            "lease": timedelta(minutes=1),
            "excluding": [],
        }
        read = await partitions_read(tx, str(due_runs._CLAIM_DUE), arguments)
        assert read == {"run_2026_11"}
        claimed = await due_runs.claim_due(tx, [definition_id], 200, lease=timedelta(minutes=1))
        assert claimed.run_ids == [], "EXPLAIN ANALYZE has claimed them"


async def test_unfinished_runs_are_found_without_reading_finished_ones(
    database: Database, definition_id: int
):
    async with database.transaction() as tx:
        ours = (await insert_run(SqlStoreTransaction(tx), definition_id)).run_id
        await tx.execute(FINISHED, {"run_id": ours, "number": LEFT})
    async with database.transaction() as tx:
        await tx.execute(text("ANALYZE saga_engine.run, saga_engine.journal"))
        before = (await tx.execute(BLOCKS)).scalar_one()
        assert (await run_queries.count_runs(tx, 1000, status=Status.RUNNING)).count == 1
        counted = (await tx.execute(BLOCKS)).scalar_one()
        page = await recovery.unfinished_runs(tx, recovery._NIL_RUN_ID, 500)
        done, _ = await recovery._resend(tx, page)
        ordered = (await tx.execute(BLOCKS)).scalar_one()
    assert done.runs == 1
    assert counted - before < ONE_MORE
    assert ordered - counted < 3 * ONE_MORE


async def test_the_unfinished_are_read_a_page_at_a_time(database: Database, definition_id: int):
    """A page costs the same, however many come after it."""
    async with database.transaction() as tx:
        ours = (await insert_run(SqlStoreTransaction(tx), definition_id)).run_id
        await tx.execute(OVERDUE, {"run_id": ours, "number": LEFT, "other": definition_id})
        await tx.execute(JOURNALS, {"run_id": ours})
    async with database.transaction() as tx:
        await tx.execute(text("ANALYZE saga_engine.run, saga_engine.journal"))
        before = (await tx.execute(BLOCKS)).scalar_one()
        page = await recovery.unfinished_runs(tx, recovery._NIL_RUN_ID, 10)
        done, _ = await recovery._resend(tx, page)
        assert done.runs == 10
        assert (await tx.execute(BLOCKS)).scalar_one() - before < 10 * ONE_MORE
