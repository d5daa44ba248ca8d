"""Outages, locks, slow databases and damaged rows: a batch is retried, halved or deferred."""

import asyncio

import pytest
from sqlalchemy import text

from saga_engine.backoff import Backoff
from saga_engine.client import start_in_transaction
from saga_engine.decider.triggers import Start
from saga_engine.errors import StoreLockTimeout, StoreUnavailable
from saga_engine.identifiers import uuid7
from saga_engine.protocol.message import Message
from saga_engine.protocol.topology import REPLIES
from saga_engine.store import dead_letter_queries, pending_requests, run_statuses
from saga_engine.store.database import Database
from saga_engine.store.migrate import upgrade
from saga_engine.store.pending_requests import NewRequest, RequestKind
from saga_engine.store.trigger_data import serialize_trigger
from saga_engine.telemetry.events import (
    DatabaseUnavailable,
    InternalErrorCaught,
    MessageDeadLettered,
)
from saga_engine.vocabulary import Status
from saga_engine.worker import transaction_runner
from saga_engine.worker.batch_runner import LockStrategy
from tests.kit.engine import SLOW_TEST_SETTINGS, engine_harness, no_reply, succeed
from tests.kit.processes import child_pids, wait_for_exit
from tests.kit.programs import wait_until_true
from tests.kit.promises import check_promises
from tests.kit.proxy import running_proxy
from tests.kit.servers import running_postgres
from tests.worker.steps import LOCK_RUNS, damage_run, delete_run, runs_in_flight


async def test_a_batch_waits_out_a_database_crash(development_broker):
    async with running_postgres() as postgres:
        url = await postgres.create_database("away")
        await upgrade(url)
        async with engine_harness(development_broker.url, url) as engine:
            worker, participant = await engine.start_worker(), await engine.start_participant()
            client = await engine.connect_client()
            participant.reply_makers["parcel.send"] = no_reply
            run_id = await client.start()
            [command] = await participant.wait_for_commands("parcel.send")
            children = child_pids(postgres.pid)
            postgres.kill()
            await participant.publish(*succeed(command))
            await worker.events.wait_for(DatabaseUnavailable, operation="batch")
            for child in children:  # PostgreSQL does not start while its children are alive
                await wait_for_exit(child)
            await postgres.restart()
            assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
            async with Database(url, SLOW_TEST_SETTINGS) as database:
                await check_promises(database)


async def test_a_batch_waits_for_a_missing_schema_and_dead_letters_nothing_else(engine):
    worker, participant, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    participant.reply_makers["parcel.send"] = no_reply
    run_id = await client.start()
    [command] = await participant.wait_for_commands("parcel.send")
    async with engine.database.transaction() as tx:
        await tx.execute(text("ALTER TABLE saga_engine.journal RENAME TO other"))
    await participant.publish(*succeed(command))
    await engine.publish_raw(b"malformed", correlation_id="?", message_id="malformed")
    await worker.events.wait_for(DatabaseUnavailable, 3, operation="batch")
    async with engine.database.transaction() as tx:
        await tx.execute(text("ALTER TABLE saga_engine.other RENAME TO journal"))
    assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    async with engine.database.transaction() as tx:
        [letter] = await dead_letter_queries.read_page(tx, limit=10)
        assert letter.message.message_id == "malformed"


async def test_a_waiting_batch_continues_once_another_transaction_succeeds(engine, monkeypatch):
    # longer than this test waits for anything
    monkeypatch.setattr(transaction_runner, "_BACKOFF", Backoff(600.0, 600.0))
    worker, participant, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    participant.reply_makers["parcel.notify"] = no_reply
    first, second = await client.start(), await client.start()
    commands = {
        each.command.run_id: each
        for each in await participant.wait_for_commands("parcel.notify", 2)
    }
    async with engine.database.transaction() as tx:
        await tx.execute(text("ALTER TABLE saga_engine.journal RENAME TO other"))
    await participant.publish(*succeed(commands[first]))
    await worker.events.wait_for(DatabaseUnavailable, operation="batch")
    async with engine.database.transaction() as tx:
        await tx.execute(text("ALTER TABLE saga_engine.other RENAME TO journal"))
    await participant.publish(*succeed(commands[second]))
    await worker.events.wait_for_end(second)
    await worker.events.wait_for_end(first)


@pytest.fixture
async def slow():
    """A database, and a proxy that limits its speed."""
    async with running_postgres(use_tcp=True) as postgres:
        url = await postgres.create_database("slow")
        await upgrade(url)
        async with running_proxy(url) as proxy:
            yield url, proxy


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", ["delivered", "recorded"])
async def test_a_slow_database_gets_smaller_batches(development_broker, slow, way):
    run_ids = [str(uuid7()) for _ in range(12)]
    parcel = {"sku": "A1", "wrapping": "x" * 150_000}
    url, proxy = slow
    async with engine_harness(
        development_broker.url, url, batch_size=12, database_transaction_timeout=1.5
    ) as engine:
        client, first = await engine.connect_client(), await engine.start_worker()
        await first.stop()  # it has declared the queue and registered the saga
        if way == "delivered":
            starts = [{"run_id": each, "saga": "parcel", "input": parcel} for each in run_ids]
            await client.send(*(("start", each) for each in starts))
        else:
            async with engine.database.transaction() as tx:
                items = [
                    NewRequest(
                        kind=RequestKind.START,
                        run_id=each,
                        body=_start(each, parcel),
                        saga="parcel",
                    )
                    for each in run_ids
                ]
                await pending_requests.record(tx, items)
        proxy.bytes_per_s = 1_000_000.0
        worker = await engine.start_worker(database_url=proxy.url)
        await worker.events.wait_for(DatabaseUnavailable)  # the whole batch must time out first

        async def all_started():
            async with engine.database.transaction() as tx:
                return len(await run_statuses.read(tx, run_ids)) == len(run_ids)

        # PostgreSQL may commit a batch whose answer came too late, so no event is awaited.
        await wait_until_true(all_started, patience=60)
        proxy.clear_faults()


def _start(run_id, parcel):
    return serialize_trigger(Start(run_id, None, parcel))[1]


async def test_a_damaged_row_dead_letters_its_own_reply_only(engine):
    worker, participant, client = (
        await engine.start_worker(run_cache_bytes=0),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    participant.reply_makers["parcel.send"] = no_reply
    runs = [await client.start() for _ in range(5)]
    commands = await participant.wait_for_commands("parcel.send", 5)
    await damage_run(engine, runs[2])
    participant.reply_makers["parcel.send"] = succeed
    await participant.publish(*(reply for command in commands for reply in succeed(command)))
    await worker.events.wait_for_dead_letter("internal_error", run_id=runs[2])
    for run_id in (runs[0], runs[1], runs[3], runs[4]):
        assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    assert worker.events.matching(InternalErrorCaught, operation="batch")
    await delete_run(engine, runs[2])


async def test_an_open_transaction_of_a_caller_blocks_its_own_key_only(engine):
    await engine.start_worker()
    await engine.start_participant()
    client, other = await engine.connect_client(), await engine.connect_client()
    requests = [
        ("start", {"run_id": str(uuid7()), "saga": "parcel", "key": "k", "input": {"to": "Ada"}})
        for _ in range(8)
    ]
    async with asyncio.TaskGroup() as group, engine.database.transaction() as tx:
        mine = await start_in_transaction(tx.connection, "parcel", {"to": "Ada"}, key="k")
        waiting = group.create_task(client.call_all(*requests))
        assert await other.start()
        assert not waiting.done()
    answers = waiting.result()
    assert {answer.outcome for answer in answers} == {"existing"}
    assert {answer.run_id for answer in answers} == {mine.run_id}


async def test_a_reply_for_a_locked_run_is_deferred_and_processed_later(engine):
    worker, participant = (
        await engine.start_worker(database_lock_timeout=0.1),
        await engine.start_participant(),
    )
    client = await engine.connect_client()
    [run_id], replies = await runs_in_flight(client, participant, 1)
    async with engine.database.transaction() as tx:
        await tx.execute(LOCK_RUNS, {"run_ids": [run_id]})
        await participant.publish(*replies)
        participant.reply_makers.clear()
        other = await client.start()
        assert await worker.events.wait_for_end(other)
    assert await worker.events.wait_for_end(run_id) == "completed"


async def test_a_worker_that_cannot_even_defer_waits_for_the_lock(engine):
    worker, participant = (
        await engine.start_worker(database_lock_timeout=0.1),
        await engine.start_participant(),
    )
    [run_id], replies = await runs_in_flight(await engine.connect_client(), participant, 1)
    async with engine.database.transaction() as tx:
        await tx.execute(LOCK_RUNS, {"run_ids": [run_id]})
        await tx.execute(text("LOCK TABLE saga_engine.pending_request"))
        await participant.publish(*replies)
        await worker.events.wait_for(DatabaseUnavailable, operation="batch")
    assert await worker.events.wait_for_end(run_id) == "completed"


async def test_a_dead_letter_waits_until_its_table_is_unlocked(engine):
    worker, participant = (
        await engine.start_worker(database_lock_timeout=0.1),
        await engine.start_participant(),
    )
    async with engine.database.transaction() as tx:
        await tx.execute(text("LOCK TABLE saga_engine.dead_letter"))
        await participant.publish(
            Message(
                exchange=REPLIES, routing_key=REPLIES, body=b"malformed", message_id=str(uuid7())
            )
        )
        await worker.events.wait_for(DatabaseUnavailable, operation="batch")
    await worker.events.wait_for(MessageDeadLettered)


def test_a_lock_timeout_leads_to_the_next_strategy_and_finally_back_to_the_first():
    strategies = [LockStrategy.WAIT_FOR_LOCKS]
    for _ in range(3):
        strategies.append(strategies[-1].after_failure(StoreLockTimeout("It is locked.")))
    assert strategies == [
        LockStrategy.WAIT_FOR_LOCKS,
        LockStrategy.SKIP_LOCKED,
        LockStrategy.DEFER_ALL,
        LockStrategy.WAIT_FOR_LOCKS,
    ]


@pytest.mark.parametrize("strategy", LockStrategy)
def test_any_other_failure_leads_back_to_the_first_strategy(strategy):
    error = StoreUnavailable("PostgreSQL is unavailable.")
    assert strategy.after_failure(error) is LockStrategy.WAIT_FOR_LOCKS
