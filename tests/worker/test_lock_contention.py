"""Somebody else holds a key or a run: what needs it is put by, and everything else goes on."""

import asyncio
from datetime import timedelta
from functools import partial

from sqlalchemy import text

from saga_engine.client import start_in_transaction
from saga_engine.identifiers import uuid7
from saga_engine.protocol.message import Message
from saga_engine.protocol.topology import REPLIES
from saga_engine.telemetry.events import (
    AttemptFinished,
    BrokerConnectionChanged,
    DatabaseUnavailable,
    EventLoopLagMeasured,
    MessageDeadLettered,
)
from saga_engine.vocabulary import Outcome
from tests.kit.connections import wait_until
from tests.kit.engine import no_reply, succeed
from tests.kit.parcels import parcels
from tests.kit.programs import wait_until_true as comes_true


async def test_a_callers_open_transaction_holds_up_its_own_key_only(engine):
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


async def test_a_run_that_somebody_has_locked_is_put_by_and_then_finished(engine):
    worker, participant = (
        await engine.start_worker(database_lock_timeout=0.1),
        await engine.start_participant(),
    )
    client = await engine.connect_client()
    [run_id], replies = await _under_way(client, participant, 1)
    async with engine.database.transaction() as tx:
        await tx.execute(_KEEP, {"run_ids": [run_id]})
        await participant.publish(*replies)
        participant.reply_makers.clear()
        other = await client.start()
        assert await worker.events.wait_for_end(other)
    assert await worker.events.wait_for_end(run_id) == "completed"


def measured_more_than(worker, before):
    return len(worker.events.matching(EventLoopLagMeasured)) > before


async def test_while_the_broker_takes_nothing_no_attempt_is_given_up(engine, development_broker):
    short = parcels(timeout=timedelta(milliseconds=200))
    worker, participant = await engine.start_worker(short), await engine.start_participant()
    client = await engine.connect_client()
    participant.reply_makers["parcel.pack"] = no_reply
    run_id = await client.start()
    await participant.wait_for_commands("parcel.pack")
    development_broker.faults.block_publishers("low on memory")
    await worker.events.wait_for(BrokerConnectionChanged, connection="publish", state="blocked")
    settled = len(worker.events.matching(AttemptFinished))
    for _ in range(2):  # each is half a second: more than the timeout, and many looks at timers
        before = len(worker.events.matching(EventLoopLagMeasured))
        await wait_until(partial(measured_more_than, worker, before))
    assert len(worker.events.matching(AttemptFinished)) == settled
    development_broker.faults.unblock_publishers()
    assert await worker.events.wait_for(
        AttemptFinished, run_id=str(run_id), outcome=Outcome.UNKNOWN
    )


async def test_runs_that_somebody_keeps_hold_up_no_start_that_waits(engine):
    worker, participant = (
        await engine.start_worker(database_lock_timeout=1.5),
        await engine.start_participant(),
    )
    client = await engine.connect_client()
    kept, replies = await _under_way(client, participant, 2)
    async with engine.database.transaction() as tx:
        await tx.execute(_KEEP, {"run_ids": kept})
        await participant.publish(*replies)
        participant.reply_makers.clear()
        await comes_true(lambda: _have_been_put_by(engine.database, 2))
        for _ in range(3):
            async with engine.database.transaction() as own:
                mine = await start_in_transaction(
                    own.connection, "parcel", {"to": "Ada"}, key=str(uuid7())
                )
            assert await worker.events.wait_for_end(str(mine.run_id))
    for each in kept:
        assert await worker.events.wait_for_end(each) == "completed"


async def test_a_worker_that_cannot_even_put_by_waits_until_it_can(engine):
    worker, participant = (
        await engine.start_worker(database_lock_timeout=0.1),
        await engine.start_participant(),
    )
    [run_id], replies = await _under_way(await engine.connect_client(), participant, 1)
    async with engine.database.transaction() as tx:
        await tx.execute(_KEEP, {"run_ids": [run_id]})
        await tx.execute(text("LOCK TABLE saga_engine.pending_request"))
        await participant.publish(*replies)
        await worker.events.wait_for(DatabaseUnavailable, operation="batch")
    assert await worker.events.wait_for_end(run_id) == "completed"


async def test_a_dead_letter_waits_until_its_table_is_free(engine):
    worker, participant = (
        await engine.start_worker(database_lock_timeout=0.1),
        await engine.start_participant(),
    )
    async with engine.database.transaction() as tx:
        await tx.execute(text("LOCK TABLE saga_engine.dead_letter"))
        await participant.publish(Message(REPLIES, REPLIES, b"rubbish", str(uuid7())))
        await worker.events.wait_for(DatabaseUnavailable, operation="batch")
    await worker.events.wait_for(MessageDeadLettered)


_KEEP = text("SELECT FROM saga_engine.run WHERE run_id = ANY (CAST(:run_ids AS uuid[])) FOR UPDATE")


async def _under_way(client, participant, number):
    """Runs that wait for a reply, and their replies, not published yet."""
    participant.reply_makers["parcel.send"] = no_reply
    run_ids = [await client.start() for _ in range(number)]
    commands = await participant.wait_for_commands("parcel.send", number)
    return run_ids, [reply for command in commands for reply in succeed(command)]


async def _have_been_put_by(database, number):
    async with database.transaction() as tx:
        found = await tx.execute(text("SELECT count(*) FROM saga_engine.pending_request"))
        return found.scalar_one() >= number
