"""Crash suspects are processed alone, and block no other run."""

import asyncio
from datetime import timedelta

from sqlalchemy import text

from saga_engine.client import start_in_transaction
from saga_engine.store import crash_suspects, due_runs, pending_requests
from saga_engine.store.crash_suspects import CrashSuspect
from saga_engine.store.pending_requests import NewRequest, ReadLimits, RequestKind
from tests.kit.engine import no_reply
from tests.worker.boxes import (
    COMMANDS,
    FAST_RESEND,
    SHORT_TIMEOUT,
    boxes,
    record_crashes,
    store_start,
)


async def test_requests_behind_the_start_of_a_suspect_are_processed_after_it(engine):
    await engine.start_participant(COMMANDS)
    async with engine.database.transaction() as tx:
        run_id = await store_start(engine, tx)
        await crash_suspects.record_crash(
            tx, CrashSuspect(run_id=run_id, step="pack", direction="action", function="pack")
        )
        cancel = {"operator": "ada", "reason": "too late"}
        await pending_requests.record(
            tx, [NewRequest(kind=RequestKind.CANCEL, run_id=run_id, body=cancel, awaits_start=True)]
        )
    worker = await engine.start_worker(boxes(), **FAST_RESEND)
    assert (await worker.events.wait_for_end(run_id)).is_finished
    async with asyncio.timeout(60):
        while await stored_request(engine):
            pass


async def test_a_suspect_that_another_worker_processes_is_left_to_it(engine):
    """A call that does not return would end both of them."""
    await engine.start_participant(COMMANDS)
    run_ids = []
    async with engine.database.transaction() as tx:
        for _ in range(2):
            run_ids.append(await store_start(engine, tx))
            await crash_suspects.record_crash(
                tx,
                CrashSuspect(run_id=run_ids[-1], step="pack", direction="action", function="pack"),
            )
    held, free = run_ids
    async with engine.database.transaction() as other:
        assert await crash_suspects.try_lock(other, held)
        worker = await engine.start_worker(boxes(), **FAST_RESEND)
        assert (await worker.events.wait_for_end(free)).is_finished
        assert await stored_request(engine) == 1
    assert (await worker.events.wait_for_end(held)).is_finished


async def stored_request(engine):
    async with engine.database.transaction() as tx:
        return (
            await tx.execute(text("SELECT count(*) FROM saga_engine.pending_request"))
        ).scalar_one()


async def test_a_suspect_is_left_to_a_worker_with_its_definition(engine):
    await engine.start_participant(COMMANDS)
    async with engine.database.transaction() as tx:
        run_id = await store_start(engine, tx)
        pinned = "UPDATE saga_engine.pending_request SET fingerprint = 'another'"
        await tx.execute(text(pinned))
        mine = text("SELECT id FROM saga_engine.definition")
        ids = list((await tx.execute(mine)).scalars())
        assert await crash_suspects.take_oldest_request(tx, run_id, ids, ReadLimits()) == []


async def test_suspects_without_work_are_not_processed(engine):
    await engine.start_participant(COMMANDS)
    worker, client = await engine.start_worker(boxes()), await engine.connect_client()
    done = await client.start("box")
    await worker.events.wait_for_end(done)
    await record_crashes(engine, done, "send", "send", times=2)
    await worker.stop()
    async with engine.database.transaction() as tx:
        waits = str((await start_in_transaction(tx.connection, "box", {})).run_id)
        await crash_suspects.record_crash(
            tx, CrashSuspect(run_id=waits, step="pack", direction="action", function="pack")
        )
        assert list(await crash_suspects.read_with_work(tx)) == [waits]


async def test_due_suspects_do_not_block_other_due_runs(engine):
    worker, client = await engine.start_worker(boxes(SHORT_TIMEOUT)), await engine.connect_client()
    participant = await engine.start_participant(COMMANDS)
    participant.reply_makers["box.pack"] = no_reply
    held, other = await client.start("box"), await client.start("box")
    await participant.wait_for_commands("box.pack", 2)
    await worker.stop()
    async with engine.database.transaction() as tx:
        past = (
            "UPDATE saga_engine.run SET wake_at = clock_timestamp() - interval '1 hour'"
            " WHERE finished_at IS NULL"
        )
        await tx.execute(text(past))
        ids = list((await tx.execute(text("SELECT id FROM saga_engine.definition"))).scalars())
        lease = timedelta(minutes=1)
        found = await due_runs.claim_due(tx, ids, 1, lease=lease, excluding={held})
        assert found.run_ids == [other]
