"""A worker's loops: deliveries, batch limits, acknowledgement and shutdown."""

import asyncio
import json

import pytest

from saga_engine.decider.triggers import Cancel
from saga_engine.identifiers import uuid7
from saga_engine.protocol.reply import encode_reply
from saga_engine.protocol.topology import REPLIES, REQUESTS
from saga_engine.store import audit, checked_requests, pending_requests
from saga_engine.store.audit import ActionKind, OperatorAction
from saga_engine.store.pending_requests import NewRequest
from saga_engine.store.trigger_data import serialize_trigger
from saga_engine.telemetry.events import (
    BrokerConnectionChanged,
    DatabaseUnavailable,
    InternalErrorCaught,
    MessageDeadLettered,
    MessagesConsumed,
    MessagesPublished,
    OperatorActionProcessed,
    ProcessStopped,
    RunStarted,
)
from saga_engine.vocabulary import Outcome, Status
from saga_engine.worker import decode, loops
from tests.kit.engine import no_reply, reject, succeed
from tests.kit.promises import check_promises
from tests.worker.steps import HOLD_BATCHES

LARGE = "é" * 5_000
"""About 10,000 bytes."""


def large(command):
    return [encode_reply(command, Outcome.SUCCEEDED, {"did": LARGE})]


async def test_answers_to_many_status_queries_are_published_in_chunks(engine):
    """An answer has 30,000 bytes, its request a hundred."""
    worker = await engine.start_worker(max_batch_bytes=120_000, max_body_bytes=40_000)
    participant, client = await engine.start_participant(), await engine.connect_client()
    for command in ("parcel.pack", "parcel.send", "parcel.notify"):
        participant.reply_makers[command] = large
    run_id = await client.start()
    assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    events_before = len(worker.events)
    answers = await client.call_all(*[("status", {"run_id": run_id})] * 60)
    assert {answer.run.status for answer in answers} == {Status.COMPLETED}
    assert all(answer.run.result["pack"]["did"] == LARGE for answer in answers)
    written = [
        each for each in worker.events[events_before:] if isinstance(each, MessagesPublished)
    ]
    assert max(each.messages for each in written) <= 3
    taken = [each for each in worker.events[events_before:] if isinstance(each, MessagesConsumed)]
    assert max(each.messages for each in taken) <= 3, (
        "a status query counts with the size of its answer"
    )


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


async def test_many_large_runs_progress_although_no_transaction_may_read_them_all(engine):
    participant, run_ids, commands = await large_runs(engine)
    await participant.publish(*[reply for command in commands for reply in large(command)])
    worker = await engine.start_worker(max_batch_bytes=30_000)
    for each in run_ids:
        assert await worker.events.wait_for_end(each) == Status.COMPLETED
    for event in (InternalErrorCaught, MessageDeadLettered, DatabaseUnavailable):
        assert worker.events.matching(event) == []


async def test_requests_for_many_large_runs_are_processed_in_smaller_batches(engine):
    """No transaction may read all of those runs; reaching that limit is not an error."""
    participant, run_ids, commands = await large_runs(engine)
    kind, body = serialize_trigger(Cancel("ada", "because"))
    async with engine.database.transaction() as tx:
        await pending_requests.record(
            tx, [NewRequest(kind=kind, run_id=each, body=body) for each in run_ids]
        )
    worker = await engine.start_worker(max_batch_bytes=30_000)
    await participant.publish(*[reply for command in commands for reply in reject(command)])
    for each in run_ids:
        assert await worker.events.wait_for_end(each) == Status.COMPENSATED
    assert worker.events.matching(InternalErrorCaught) == []


async def test_a_reply_waits_for_at_most_one_batch_of_requests(engine):
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
    # Both queues are full before it starts, and the broker delivers them in any order.
    assert len(consumed[:before]) <= 2
    assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    taken = worker.events.matching(MessagesConsumed, queue=REQUESTS)
    assert max(each.messages for each in taken) <= 3


def many(command):
    return [encode_reply(command, Outcome.SUCCEEDED, {str(each): "" for each in range(3_900)})]


async def test_a_result_with_more_values_than_a_client_reads_is_left_out_of_the_answer(engine):
    """Each reply is within the limit, and the result of all three exceeds it."""
    worker, participant, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    for command in ("parcel.pack", "parcel.send", "parcel.notify"):
        participant.reply_makers[command] = many
    run_id = await client.start()
    assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    answer = await client.call("status", run_id=run_id)
    assert (answer.outcome, answer.run.status, answer.run.result) == ("existing", "completed", None)


async def test_pending_requests_for_many_large_runs_are_taken_in_smaller_batches(engine):
    """Their runs exceed what one transaction reads; that is a limit and not an error."""
    _, run_ids, _ = await large_runs(engine)
    kind, body = serialize_trigger(Cancel("ann", "a mistake"))
    acts = [
        OperatorAction(
            id=str(uuid7()),
            operator="ann",
            action=ActionKind(kind),
            reason="a mistake",
            run_id=each,
        )
        for each in run_ids
    ]
    async with engine.database.transaction() as tx:
        await audit.record(tx, acts)
        await checked_requests.record_operator_requests(
            tx,
            [
                NewRequest(kind=kind, run_id=run, body=body, audit_id=act.id)
                for act, run in zip(acts, run_ids, strict=True)
            ],
        )
    worker = await engine.start_worker(max_batch_bytes=30_000)
    await worker.events.wait_for(OperatorActionProcessed, len(run_ids))
    async with engine.database.transaction() as tx:
        decided = await audit.find_decided(tx, [act.id for act in acts])
    assert [each.outcome for each in decided] == ["accepted"] * len(run_ids)
    for event in (InternalErrorCaught, MessageDeadLettered, DatabaseUnavailable):
        assert worker.events.matching(event) == []


async def test_nothing_is_acknowledged_before_the_commit(engine_on_any_broker):
    worker, participant, client = (
        await engine_on_any_broker.start_worker(),
        await engine_on_any_broker.start_participant(),
        await engine_on_any_broker.connect_client(),
    )
    participant.reply_makers["parcel.send"] = no_reply
    run_id = await client.start()
    [command] = await participant.wait_for_commands("parcel.send")
    async with engine_on_any_broker.database.transaction() as tx:
        await tx.execute(HOLD_BATCHES)
        before = len(worker.events.matching(MessagesConsumed, queue="saga.replies"))
        await participant.publish(*succeed(command))
        await worker.events.wait_for(MessagesConsumed, before + 1, queue="saga.replies")
        await worker.crash()  # it has taken the reply and waits for the lock
    other = await engine_on_any_broker.start_worker()
    assert await other.events.wait_for_end(run_id) == Status.COMPLETED
    consumed = other.events.matching(MessagesConsumed, queue="saga.replies")
    assert sum(event.redelivered for event in consumed) == 1
    await check_promises(engine_on_any_broker.database)


@pytest.mark.long
async def test_runs_survive_a_broker_that_closes_every_connection(engine, development_broker):
    worker, _, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    runs = []
    for _ in range(3):
        runs += [str(uuid7()) for _ in range(10)]
        await client.send(
            *(("start", {"run_id": each, "saga": "parcel", "input": {}}) for each in runs[-10:])
        )
        [*_, last] = await worker.events.wait_for(RunStarted, len(runs))
        assert last
        epochs = len(worker.events.matching(BrokerConnectionChanged, state="connected"))
        development_broker.faults.abort_connections()
        await worker.events.wait_for(BrokerConnectionChanged, epochs + 2, state="connected")
        await (await engine.connect_client()).call("status", run_id=runs[0])
        client = await engine.connect_client()
    for run_id in runs:
        assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    await check_promises(engine.database)


async def test_a_bug_in_one_batch_of_deliveries_is_reported_and_stops_no_other(engine, monkeypatch):
    reading, bugs = decode.decode_deliveries, iter([KeyError("a bug")])

    async def read_or_break(*arguments):
        for bug in bugs:
            raise bug
        return await reading(*arguments)

    monkeypatch.setattr(loops, "decode_deliveries", read_or_break)
    worker, _, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    held = str(uuid7())
    [asked] = await client.send(("start", {"run_id": held, "saga": "parcel", "input": {}}))
    [fault] = await worker.events.wait_for(InternalErrorCaught)
    assert fault.operation == "deliveries"
    assert await worker.events.wait_for_end(await client.start()) == Status.COMPLETED
    assert asked not in client.answers
    await worker.stop()  # unprocessed deliveries go to another worker
    other = await engine.start_worker()
    assert await other.events.wait_for_end(held) == Status.COMPLETED


async def test_shutdown_finishes_what_was_delivered(engine_on_any_broker):
    worker, participant, client = (
        await engine_on_any_broker.start_worker(),
        await engine_on_any_broker.start_participant(),
        await engine_on_any_broker.connect_client(),
    )
    participant.reply_makers["parcel.notify"] = reject
    run_id = await client.start()
    await worker.events.wait_for(RunStarted, run_id=run_id)
    await worker.stop()
    [stopped] = worker.events.matching(ProcessStopped)
    assert stopped.clean
    other = await engine_on_any_broker.start_worker()
    async with asyncio.timeout(20):
        while (await client.call("status", run_id=run_id)).run.status != Status.COMPENSATED:
            pass
    await other.stop()
    await check_promises(engine_on_any_broker.database)


async def test_unfinished_deliveries_go_to_another_worker_after_the_shutdown_timeout(engine):
    worker = await engine.start_worker(shutdown_timeout=0.5)
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.send"] = no_reply
    run_id = await client.start()
    [command] = await participant.wait_for_commands("parcel.send")
    async with engine.database.transaction() as tx:
        await tx.execute(HOLD_BATCHES)
        before = len(worker.events.matching(MessagesConsumed, queue="saga.replies"))
        await participant.publish(*succeed(command))
        await worker.events.wait_for(MessagesConsumed, before + 1, queue="saga.replies")
        await worker.stop()
        [stopped] = worker.events.matching(ProcessStopped)
        assert not stopped.clean
    other = await engine.start_worker()
    assert await other.events.wait_for_end(run_id) == Status.COMPLETED
    await check_promises(engine.database)
