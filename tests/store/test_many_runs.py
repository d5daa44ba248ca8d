"""What runs all day stays quick however many runs have finished: it reads none of them."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from sqlalchemy import text

from saga_engine.decider.triggers import ReplyReceived
from saga_engine.settings import Settings
from saga_engine.store import (
    backlog_counts,
    batch_append,
    business_keys,
    definitions,
    due_runs,
    incidents,
    outbox,
    pending_requests,
    request_queue,
    run_queries,
    run_statuses,
    runs,
)
from saga_engine.store.batch_append import BatchAppend
from saga_engine.store.business_keys import KeyRequest
from saga_engine.store.database import Database
from saga_engine.store.migrate import upgrade
from saga_engine.store.sql_store import SqlStoreTransaction
from saga_engine.vocabulary import Direction, Outcome, Status
from tests.kit.stored_runs import INPUT, ORDERS, apply_trigger, insert_run, run_id

FINISHED = [20_000, pytest.param(200_000, marks=pytest.mark.long)]
AT_MOST = 500  # Rows read for one page or one batch.

MANY = text(
    """
    INSERT INTO saga_engine.run (run_id, started_at, finished_at, deadline, wake_at, definition_id,
        status, key, result, cause)
    SELECT CAST(overlay(CAST(r.run_id AS text) PLACING lpad(to_hex(n), 12, '0') FROM 25) AS uuid),
        r.started_at, r.finished_at, r.deadline, r.wake_at, r.definition_id,
        r.status, 'key-' || n, r.result, r.cause
    FROM saga_engine.run AS r, generate_series(1, :number) AS n
    WHERE r.run_id = CAST(:run_id AS uuid)"""
)
KEYS = text(
    """
    INSERT INTO saga_engine.business_key (saga, key, run_id, input_digest)
    SELECT 'place-order', key, run_id, decode(repeat('00', 32), 'hex')
    FROM saga_engine.run WHERE key IS NOT NULL"""
)
JOURNALS = text(
    """
    INSERT INTO saga_engine.journal (run_id, revision, recorded_at, position, events)
    SELECT r.run_id, j.revision, j.recorded_at, saga_engine.draw_positions(2), j.events
    FROM saga_engine.journal AS j, saga_engine.run AS r
    WHERE j.run_id = CAST(:run_id AS uuid) AND j.revision = 1 AND r.run_id <> j.run_id"""
)
READ = text(
    """
    SELECT coalesce(sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)), 0)::integer
    FROM pg_stat_xact_user_tables WHERE schemaname = 'saga_engine'"""
)


@pytest.fixture(scope="module", params=FINISHED)
async def full(request, postgres):
    """A database with very many finished runs, and a few that are not; it is only read."""
    url = await postgres.create_database("full")
    await upgrade(url)
    async with Database(url, Settings(database_transaction_timeout=60)) as database:
        async with database.transaction() as tx:
            number = (await definitions.register(tx, [ORDERS]))[ORDERS.name, ORDERS.version]
            done = (await insert_run(SqlStoreTransaction(tx), number)).run_id
            for step in ("reserve", "charge"):
                await apply_trigger(
                    SqlStoreTransaction(tx),
                    done,
                    ReplyReceived(
                        step=step,
                        direction=Direction.ACTION,
                        attempt=1,
                        outcome=Outcome.SUCCEEDED,
                        body={},
                    ),
                )
            await tx.execute(MANY, {"run_id": done, "number": request.param})
            await tx.execute(JOURNALS, {"run_id": done})
            await tx.execute(KEYS)
            for _ in range(5):
                await due_runs.defer_wake(
                    tx,
                    (await insert_run(SqlStoreTransaction(tx), number)).run_id,
                    timedelta(seconds=-1),
                )
        yield database, number, done
    await postgres.drop_database("full")


STATEMENTS: dict[str, Callable[..., Awaitable[object]]] = {
    "the newest": lambda tx, **_: run_queries.list_runs(tx, limit=50),
    "a page": lambda tx, done, **_: run_queries.list_runs(tx, limit=50, before_run_id=done),
    "the completed": lambda tx, **_: run_queries.list_runs(tx, limit=50, status=Status.COMPLETED),
    "the unfinished": lambda tx, **_: run_queries.list_runs(tx, limit=50, status=Status.RUNNING),
    "the compensated, none": lambda tx, **_: run_queries.list_runs(
        tx, limit=50, status=Status.COMPENSATED
    ),
    "those of a saga": lambda tx, **_: run_queries.list_runs(tx, limit=50, saga="place-order"),
    "those of no saga": lambda tx, **_: run_queries.list_runs(tx, limit=50, saga="nobody"),
    "the one with a key": lambda tx, **_: run_queries.list_runs(tx, limit=50, key="key-7777"),
    "one": lambda tx, done, **_: run_queries.find(tx, done),
    "all of one": lambda tx, done, **_: run_queries.read_detail(tx, done),
    "the gauges": lambda tx, **_: backlog_counts.count_backlog(tx),
    "a run": lambda tx, done, **_: runs.read(tx, [done, run_id()]),
    "an append": lambda tx, done, **_: batch_append.append(
        tx, BatchAppend(unchanged={done: 3}, confirmed_ids=[1])
    ),
    "a status": lambda tx, done, **_: run_statuses.read(tx, [done]),
    "what is due": lambda tx, number, **_: due_runs.claim_due(
        tx, [number], 100, lease=timedelta(seconds=-1)
    ),
    "what will be": lambda tx, **_: due_runs.due_within(tx, {1: timedelta(minutes=1)}, 100),
    "what is resent": lambda tx, **_: outbox.claim_stale(tx, timedelta(seconds=8), 100),
    "pending starts": lambda tx, **_: pending_requests.find_starts(tx, [run_id()]),
    "what waits": lambda tx, number, **_: request_queue.take(
        tx, definition_ids=[number], limit=100
    ),
    "the incidents": lambda tx, **_: incidents.read_page(tx, limit=50),
    "a key": lambda tx, **_: business_keys.try_reserve(
        tx, [KeyRequest("place-order", "key-5", run_id(), INPUT)]
    ),
}


@pytest.mark.parametrize("name", STATEMENTS)
async def test_no_statement_reads_the_finished_runs(full, name):
    database, number, done = full
    async with database.transaction() as tx:
        before = (await tx.execute(READ)).scalar_one()
        await STATEMENTS[name](tx, number=number, done=done)
        read = (await tx.execute(READ)).scalar_one() - before
    assert read < AT_MOST
