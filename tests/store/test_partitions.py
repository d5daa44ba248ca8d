import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from saga_engine.errors import StoreLockTimeout
from saga_engine.identifiers import uuid7
from saga_engine.postgres.statement import Statement
from saga_engine.settings import Settings
from saga_engine.store import (
    audit,
    backlog_counts,
    business_keys,
    checked_requests,
    due_runs,
    journal,
    partition_tables,
    partitions,
    pending_requests,
    request_queue,
    run_queries,
)
from saga_engine.store.audit import ActionKind, OperatorAction
from saga_engine.store.business_keys import KeyRequest
from saga_engine.store.database import Database, SqlAlchemyTransaction
from saga_engine.store.partitions import LockRetry, MaintenanceResult, ReaderReport
from saga_engine.store.pending_requests import NewRequest, RequestKind
from saga_engine.store.sql_store import SqlStoreTransaction
from simulation import virtual_time
from simulation.faults import FaultInjector, seeded_random
from simulation.memory_client import MemoryDatabaseClient
from simulation.memory_database import MemoryDatabase
from simulation.memory_store import MemoryStoreTransaction
from simulation.process import SimulatedProcess
from tests.kit.partitions import PAST, add_past_month, insert_finished_run, partitions_of
from tests.kit.stored_runs import INPUT, RESERVED, apply_trigger, insert_run, run_id


async def test_partitions_of_the_coming_months_are_added_once(database: Database):
    made = await partitions.maintain(database, retention_days=0, months_ahead=15)
    again = await partitions.maintain(database, retention_days=0, months_ahead=15)
    assert (made.created, again.created) == (2 * 3, 0)


async def test_no_table_is_locked_when_there_is_nothing_to_do(database: Database):
    async with database.transaction() as other:
        await other.execute(text("LOCK TABLE saga_engine.run IN ACCESS SHARE MODE"))
        done = await partitions.maintain(database, retention_days=30)
    assert done == MaintenanceResult(created=0, dropped=(), readers=ReaderReport())


async def test_a_new_database_has_partitions_for_a_year(database: Database):
    async with database.transaction() as tx:
        missing = text("SELECT count(*) FROM saga_engine.missing_partitions(12)")
        assert (await tx.execute(missing)).scalar_one() == 0


async def test_no_partition_is_added_while_the_default_partition_is_large(
    database: Database, definition_id: int
):
    """PostgreSQL would read all of it, and block every worker meanwhile."""
    async with database.transaction() as tx:
        run = await insert_run(SqlStoreTransaction(tx), definition_id)
        await tx.execute(STRAYS, {"run_id": run.run_id, "number": 18_000})
        await add_past_month(tx)
        locks = text(
            "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()"
            " AND mode = 'AccessExclusiveLock' AND relation = 'saga_engine.run'::regclass"
        )
        assert (await tx.execute(locks)).scalar_one() == 0
        made = text("SELECT to_regclass('saga_engine.run_2020_01')")
        assert (await tx.execute(made)).scalar_one() is None


async def test_concurrent_workers_add_a_partition_once(database: Database, definition_id: int):
    async with database.transaction() as tx:
        run = await insert_run(SqlStoreTransaction(tx), definition_id, at=PAST)

    async def make() -> None:
        async with database.transaction() as tx:
            await add_past_month(tx)

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(make())
    async with database.transaction() as tx:
        assert await homes(tx, run.run_id) == {"run_2020_01", "journal_2020_01"}


async def test_a_run_and_its_events_are_in_the_partition_of_their_month(
    database: Database, definition_id: int
):
    async with database.transaction() as tx:
        await add_past_month(tx)
        run = await insert_run(SqlStoreTransaction(tx), definition_id, at=PAST)
        assert await homes(tx, run.run_id) == {"run_2020_01", "journal_2020_01"}


async def test_runs_in_the_default_partition_move_to_their_month(
    database: Database, definition_id: int
):
    async with database.transaction() as tx:
        run = await insert_run(SqlStoreTransaction(tx), definition_id, at=PAST)
        assert await homes(tx, run.run_id) == {"run_default", "journal_default"}
        events = await journal.read(tx, run.run_id)
        await add_past_month(tx)
        assert await homes(tx, run.run_id) == {"run_2020_01", "journal_2020_01"}
        assert await journal.read(tx, run.run_id) == events


async def test_an_expired_month_is_dropped(database: Database, definition_id: int):
    run_id = await insert_finished_run(database, definition_id)
    async with database.transaction() as tx:
        await pending_requests.record(
            tx, [NewRequest(kind=RequestKind.CANCEL, run_id=run_id, body={})]
        )
    done = await partitions.maintain(database, retention_days=30)
    assert done.dropped == ("2020_01",)
    async with database.transaction() as tx:
        assert await run_queries.find(tx, run_id) is None
        assert await journal.read(tx, run_id) == []
        assert await run_queries.find_by_key(tx, "place-order", "k") is None
        assert (await backlog_counts.count_backlog(tx)).pending_requests == 0


async def test_an_action_on_a_dropped_run_is_refused(database: Database, definition_id: int):
    """Its request waits for a worker with the definition of the run, and there is none."""
    run_id, act = await insert_finished_run(database, definition_id), str(uuid7())
    async with database.transaction() as tx:
        await audit.record(
            tx,
            [
                OperatorAction(
                    id=act,
                    operator="ann",
                    action=ActionKind.CANCEL,
                    reason="a mistake",
                    run_id=run_id,
                )
            ],
        )
        await checked_requests.record_operator_requests(
            tx,
            [
                NewRequest(
                    kind=RequestKind.CANCEL,
                    run_id=run_id,
                    body={"operator": "ann", "reason": "a mistake"},
                    audit_id=act,
                )
            ],
        )
    await partitions.maintain(database, retention_days=30)
    async with database.transaction() as tx:
        [decided] = await audit.find_decided(tx, [act])
    assert (decided.outcome, "dropped" in (decided.message or "")) == ("refused", True)


async def test_the_index_of_a_month_is_summarized_before_its_tables_are_locked(
    database: Database, definition_id: int, monkeypatch
):
    """PostgreSQL would read the other ranges while every worker waits."""
    monkeypatch.setattr(partition_tables, "_RANGES_PER_TRANSACTION", 2)
    run_id = await insert_finished_run(database, definition_id)
    async with database.transaction() as tx:
        await tx.execute(MANY_OF_ITS_MONTH, {"run_id": run_id, "number": 6_000})
    left: list[int] = []

    async def looks() -> None:
        async with database.transaction() as tx:
            left.append((await tx.execute(UNSUMMARIZED)).scalar_one())

    interrupted: Any = DatabaseWithInterruption(database, partition_tables._DETACH_MONTH, looks)
    assert (await partitions.maintain(interrupted, retention_days=30)).dropped == ("2020_01",)
    assert left == [0]


async def test_a_month_with_an_unfinished_run_is_kept(database: Database, definition_id: int):
    old = await insert_finished_run(database, definition_id)
    async with database.transaction() as tx:
        await insert_run(SqlStoreTransaction(tx), definition_id, at=PAST)
    assert (await partitions.maintain(database, retention_days=30)).dropped == ()
    async with database.transaction() as tx:
        assert await run_queries.find(tx, old) is not None
        assert await run_queries.find_by_key(tx, "place-order", "k") == old


async def test_a_month_with_a_recently_finished_run_is_kept(database: Database, definition_id: int):
    await insert_finished_run(database, definition_id, days=29)
    assert (await partitions.maintain(database, retention_days=30)).dropped == ()
    assert (await partitions.maintain(database, retention_days=28)).dropped == ("2020_01",)


async def test_a_month_with_a_pending_start_is_kept(database: Database, definition_id: int):
    await insert_finished_run(database, definition_id)
    start = NewRequest(
        kind=RequestKind.START, run_id=run_id(PAST), body={}, saga="place-order", version=1, key="w"
    )
    async with database.transaction() as tx:
        await business_keys.try_reserve(tx, [KeyRequest("place-order", "w", start.run_id, INPUT)])
        await pending_requests.record(tx, [start])
    assert (await partitions.maintain(database, retention_days=30)).dropped == ()
    async with database.transaction() as tx:
        ours: dict[str, Any] = {"definition_ids": [definition_id], "limit": 9}
        [taken] = await request_queue.take_starts(tx, {"place-order": 9}, **ours)
        assert taken.run_id == start.run_id
        assert await run_queries.find_by_key(tx, "place-order", "w") == start.run_id
    assert (await partitions.maintain(database, retention_days=30)).dropped == ("2020_01",)


@pytest.mark.parametrize("before", [partition_tables._MONTH_NEEDED, partition_tables._DETACH_MONTH])
async def test_a_run_that_starts_in_an_old_month_keeps_its_key_and_month(
    database: Database, definition_id: int, before: Statement
):
    """It starts before the keys are released, or after that."""
    await insert_finished_run(database, definition_id)
    started = []

    async def begins() -> None:
        async with database.transaction() as tx:
            run = await insert_run(SqlStoreTransaction(tx), definition_id, key="new", at=PAST)
            await business_keys.try_reserve(
                tx, [KeyRequest("place-order", "new", run.run_id, INPUT)]
            )
            started.append(run.run_id)

    interrupted: Any = DatabaseWithInterruption(database, before, begins)
    assert (await partitions.maintain(interrupted, retention_days=30)).dropped == ()
    async with database.transaction() as tx:
        assert await run_queries.find_by_key(tx, "place-order", "new") == started[0]
        assert await homes(tx, started[0]) == {"run_2020_01", "journal_2020_01"}


async def test_a_detached_month_of_a_dead_worker_is_deleted_by_the_next(
    database: Database, definition_id: int
):
    run_id = await insert_finished_run(database, definition_id)

    async def dies() -> None:
        raise ZeroDivisionError

    interrupted: Any = DatabaseWithInterruption(database, partition_tables._DELETE_INCIDENTS, dies)
    with pytest.raises(ZeroDivisionError):
        await partitions.maintain(interrupted, retention_days=30)
    assert (await partitions.maintain(database, retention_days=30)).dropped == ("2020_01",)
    async with database.transaction() as tx:
        assert await run_queries.find_by_key(tx, "place-order", "k") is None
        assert await run_queries.find(tx, run_id) is None


async def test_dropping_a_month_interrupts_no_worker(database: Database, definition_id: int):
    """Workers lock runs before events, and so does this: they do not deadlock."""
    for _ in range(3):
        await insert_finished_run(database, definition_id, key=None)
    stop, committed = asyncio.Event(), asyncio.Semaphore(0)

    async def work() -> None:
        while not stop.is_set():
            async with database.transaction() as tx:
                await due_runs.claim_due(tx, [definition_id], 200, lease=timedelta(seconds=-1))
                run = await insert_run(SqlStoreTransaction(tx), definition_id)
            async with database.transaction() as tx:
                await apply_trigger(SqlStoreTransaction(tx), run.run_id, RESERVED)
            committed.release()

    patience = LockRetry(lock_timeout=0.2, max_attempts=1000)
    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(work())
        for _ in range(20):
            await committed.acquire()
        done = await partitions.maintain(database, retention_days=30, lock_retry=patience)
        for _ in range(20):
            await committed.acquire()
        stop.set()
    assert done.dropped == ("2020_01",)
    async with database.transaction() as tx:
        assert await partitions_of(tx, "2020_01") == set()


async def test_dropping_a_month_gives_up_when_a_table_is_locked(
    database: Database, definition_id: int
):
    await insert_finished_run(database, definition_id)
    impatient = LockRetry(lock_timeout=0.01, max_attempts=3)
    async with database.transaction() as other:
        await other.execute(text("LOCK TABLE saga_engine.run IN ACCESS SHARE MODE"))
        with pytest.raises(StoreLockTimeout):
            await partitions.maintain(database, retention_days=30, lock_retry=impatient)
        async with database.transaction() as tx:
            await insert_run(
                SqlStoreTransaction(tx), definition_id
            )  # an attempt that gave up blocks no worker
    done = await partitions.maintain(database, retention_days=30, lock_retry=impatient)
    assert (done.dropped, done.lock_attempts) == (("2020_01",), 1)


WAITS = text(
    "SELECT pid FROM pg_locks WHERE NOT granted AND relation = 'saga_engine.run'::regclass"
)
HOLDS = text(
    "SELECT l.relation::regclass::text FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation"
    " WHERE l.pid = :pid AND l.granted AND c.relnamespace = 'saga_engine'::regnamespace"
)


async def test_an_attempt_to_drop_a_month_blocks_no_worker_while_it_waits(
    migrated_url: str, database: Database, definition_id: int
):
    """A worker has locked runs by then, and their events come after them."""
    await insert_finished_run(database, definition_id)
    patient = LockRetry(lock_timeout=60.0)
    async with (
        Database(migrated_url, Settings(database_transaction_timeout=60.0)) as slow_database,
        asyncio.TaskGroup() as group,
        slow_database.transaction() as worker,
    ):
        await worker.execute(text("LOCK TABLE ONLY saga_engine.run IN ROW EXCLUSIVE MODE"))
        dropping = group.create_task(
            partitions.maintain(slow_database, retention_days=30, lock_retry=patient)
        )
        pid = None
        while pid is None and not dropping.done():
            pid = (await worker.execute(WAITS)).scalar_one_or_none()
        held = (await worker.execute(HOLDS, {"pid": pid})).scalars()
        assert list(held) == []
    assert dropping.result().dropped == ("2020_01",)


async def test_without_a_retention_nothing_is_dropped(database: Database, definition_id: int):
    await insert_finished_run(database, definition_id)
    assert (await partitions.maintain(database, retention_days=0)).dropped == ()


MANY_OF_ITS_MONTH = text(
    """
    INSERT INTO saga_engine.run (run_id, started_at, finished_at, definition_id, status, result)
    SELECT (left(r.run_id::text, 24) || lpad(to_hex(n), 12, '0'))::uuid, r.started_at,
        r.finished_at, r.definition_id, 'completed', to_jsonb(repeat(md5(n::text), 30))
    FROM saga_engine.run AS r, generate_series(1, :number) AS n
    WHERE r.run_id = CAST(:run_id AS uuid)"""
)

# Summarizes them, and says how many ranges of pages it found that were not.
UNSUMMARIZED = text(
    "SELECT sum(brin_summarize_new_values(i.indexrelid))::integer FROM pg_index AS i"
    " JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_am AS a ON a.oid = c.relam"
    " WHERE a.amname = 'brin' AND i.indrelid = 'saga_engine.run_2020_01'::regclass"
)

STRAYS = text(
    """
    INSERT INTO saga_engine.run (run_id, started_at, finished_at, definition_id, status, result)
    SELECT gen_random_uuid(), r.started_at, clock_timestamp(), r.definition_id,
        'completed', to_jsonb(repeat(md5(n::text), 30))
    FROM saga_engine.run AS r, generate_series(1, :number) AS n
    WHERE r.run_id = CAST(:run_id AS uuid)"""
)


class DatabaseWithInterruption:
    """A database that runs something else before one of its statements, once."""

    def __init__(self, database: Database, statement: Statement, meanwhile) -> None:
        self._database = database
        self._statement = statement
        self._meanwhile = meanwhile

    @asynccontextmanager
    async def transaction(self):
        async with self._database.transaction() as tx:
            self._tx = tx
            yield self

    async def execute(self, statement: Statement, arguments=None):
        if statement is self._statement and self._meanwhile is not None:
            meanwhile, self._meanwhile = self._meanwhile, None
            await meanwhile()
        return await self._tx.execute(statement, arguments)


async def homes(tx: SqlAlchemyTransaction, run_id: str) -> set[str]:
    where = text(
        "SELECT tableoid::regclass::text FROM saga_engine.run WHERE run_id = CAST(:id AS uuid)"
        " UNION SELECT tableoid::regclass::text FROM saga_engine.journal"
        " WHERE run_id = CAST(:id AS uuid)"
    )
    found = (await tx.execute(where, {"id": run_id})).scalars()
    return {name.rpartition(".")[2] for name in found}


class LockedTables(MemoryStoreTransaction):
    """Tables of which one partition is missing, and which another transaction never unlocks."""

    async def count_missing_partitions(self, months_ahead: int) -> int:
        del months_ahead
        return 1

    async def add_partitions(self, months_ahead: int) -> int:
        del months_ahead
        raise StoreLockTimeout("The table is locked.")


def test_any_number_of_attempts_may_be_allowed():
    """A delay that doubled with each of 1,100 attempts would exceed every float."""
    process = SimulatedProcess("test", FaultInjector(), seeded_random(0, "network"))
    client = MemoryDatabaseClient(MemoryDatabase(), process, LockedTables)
    patient = LockRetry(max_attempts=1_100)
    with pytest.raises(StoreLockTimeout):
        virtual_time.run(
            partitions.maintain_tables(
                client.transaction,
                retention_days=0,
                months_ahead=12,
                lock_retry=patient,
                retention_hold=1.0,
            )
        )
