"""A batch is bounded by bytes, whatever is in it, and replies do not wait for requests."""

import asyncio
import json

from saga_engine.decider.triggers import Cancel, serialize_trigger
from saga_engine.identifiers import uuid7
from saga_engine.protocol.reply import encode_reply
from saga_engine.protocol.topology import REPLIES, REQUESTS
from saga_engine.store import audit, checked_requests, pending_requests
from saga_engine.store.audit import OperatorAction
from saga_engine.store.pending_requests import NewRequest
from saga_engine.telemetry.events import (
    DatabaseUnavailable,
    InternalErrorCaught,
    MessageDeadLettered,
    MessagesConsumed,
    MessagesPublished,
    OperatorActionProcessed,
)
from saga_engine.vocabulary import Outcome, Status
from tests.kit.engine import no_reply, reject

LARGE = "é" * 5_000
"""About 10,000 bytes."""


def large(command):
    return [encode_reply(command, Outcome.SUCCEEDED, {"did": LARGE})]


async def test_answers_to_many_questions_are_written_a_few_at_a_time(engine):
    """Each is 30,000 bytes, although its question has hundred."""
    worker = await engine.start_worker(max_batch_bytes=120_000, max_body_bytes=40_000)
    participant, client = await engine.start_participant(), await engine.connect_client()
    for command in ("parcel.pack", "parcel.send", "parcel.tell"):
        participant.reply_makers[command] = large
    run_id = await client.start()
    assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    told = len(worker.events.events)
    answers = await client.call_all(*[("status", {"run_id": run_id})] * 60)
    assert {answer.status for answer in answers} == {Status.COMPLETED}
    assert all(answer.result["pack"]["did"] == LARGE for answer in answers)
    written = [each for each in worker.events.events[told:] if isinstance(each, MessagesPublished)]
    assert max(each.messages for each in written) <= 3
    taken = [each for each in worker.events.events[told:] if isinstance(each, MessagesConsumed)]
    assert max(each.messages for each in taken) <= 3, "questions count as their answers"


async def large_runs(engine):
    """Twelve runs that wait for their first reply, and no worker: participant, ids, commands."""
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.pack"] = no_reply
    worker = await engine.start_worker()
    run_ids = [str(uuid7()) for _ in range(12)]
    given = {"saga": "parcel", "input": {"text": LARGE}}
    await client.call_all(*[("start", {"run_id": each, **given}) for each in run_ids])
    commands = await participant.wait_for_commands("parcel.pack", len(run_ids))
    await worker.stop()
    return participant, run_ids, commands


async def test_many_large_runs_go_on_together_although_no_transaction_may_read_them_all(engine):
    participant, run_ids, commands = await large_runs(engine)
    await participant.publish(*[reply for command in commands for reply in large(command)])
    worker = await engine.start_worker(max_batch_bytes=30_000)
    for each in run_ids:
        assert await worker.events.wait_for_end(each) == Status.COMPLETED
    for fact in (InternalErrorCaught, MessageDeadLettered, DatabaseUnavailable):
        assert worker.events.matching(fact) == []


async def test_requests_for_many_large_runs_go_through_in_smaller_portions(engine):
    """That no transaction may read all of those runs is a limit that was met, and no bug."""
    participant, run_ids, commands = await large_runs(engine)
    kind, body = serialize_trigger(Cancel("ada", "because"))
    async with engine.database.transaction() as tx:
        await pending_requests.record(tx, [NewRequest(kind, each, body) for each in run_ids])
    worker = await engine.start_worker(max_batch_bytes=30_000)
    await participant.publish(*[reply for command in commands for reply in reject(command)])
    for each in run_ids:
        assert await worker.events.wait_for_end(each) == Status.COMPENSATED
    assert worker.events.matching(InternalErrorCaught) == []


async def test_a_reply_waits_for_no_more_than_one_batch_of_requests(engine):
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.pack"] = no_reply
    worker = await engine.start_worker()
    run_id = await client.start()
    [command] = await participant.wait_for_commands("parcel.pack")
    await worker.stop()
    body = json.dumps({"text": LARGE, "saga": "nothing"}).encode()
    async with asyncio.TaskGroup() as group:
        for _ in range(30):
            group.create_task(engine.publish_raw(body, exchange=REQUESTS, routing_key="cancel"))
    await participant.publish(*large(command))
    worker = await engine.start_worker(max_concurrent_batches=1, max_batch_bytes=25_000)
    await worker.events.wait_for(MessagesConsumed, queue=REPLIES)
    consumed = [each.queue for each in worker.events.matching(MessagesConsumed)]
    before = consumed.index(REPLIES)
    # Both queues are full before it begins, and the broker sends them in any order.
    assert len(consumed[:before]) <= 2
    assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    taken = worker.events.matching(MessagesConsumed, queue=REQUESTS)
    assert max(each.messages for each in taken) <= 3


def many(command):
    return [encode_reply(command, Outcome.SUCCEEDED, {str(each): "" for each in range(3_900)})]


async def test_a_result_of_more_values_than_its_reader_takes_is_left_out_of_the_answer(engine):
    """Each reply is within the limit; the three together are beyond it."""
    worker, participant, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    for command in ("parcel.pack", "parcel.send", "parcel.tell"):
        participant.reply_makers[command] = many
    run_id = await client.start()
    assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    answer = await client.call("status", run_id=run_id)
    assert (answer.outcome, answer.status, answer.result) == ("existing", "completed", None)


async def test_requests_recorded_for_many_large_runs_are_taken_a_few_at_a_time(engine):
    """Together their runs are more than a transaction reads, which is no fault of anything."""
    _, run_ids, _ = await large_runs(engine)
    kind, body = serialize_trigger(Cancel("ann", "a mistake"))
    acts = [OperatorAction(str(uuid7()), "ann", kind, "a mistake", each) for each in run_ids]
    async with engine.database.transaction() as tx:
        await audit.record(tx, acts)
        await checked_requests.record_operator_requests(
            tx,
            [
                NewRequest(kind, run, body, audit_id=act.id)
                for act, run in zip(acts, run_ids, strict=True)
            ],
        )
    worker = await engine.start_worker(max_batch_bytes=30_000)
    await worker.events.wait_for(OperatorActionProcessed, len(run_ids))
    async with engine.database.transaction() as tx:
        decided = await audit.find_decided(tx, [act.id for act in acts])
    assert [each.outcome for each in decided] == ["accepted"] * len(run_ids)
    for fact in (InternalErrorCaught, MessageDeadLettered, DatabaseUnavailable):
        assert worker.events.matching(fact) == []
