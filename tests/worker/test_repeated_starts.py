"""A repeated start finds its run or its queued start."""

from sqlalchemy import text

from saga_engine.store import run_queries
from saga_engine.telemetry.events import RunFinished
from saga_engine.vocabulary import Status
from tests.kit.engine import no_reply, succeed
from tests.kit.parcels import failing_parcels, parcels
from tests.worker.versions import queue_one_start, second_version, start


async def test_a_repeated_start_finds_the_queued_start_on_a_worker_without_the_saga(engine):
    """The worker has not loaded the saga, so the repeated start is not pinned."""
    worker, _, client, _, waiting = await queue_one_start(engine)
    await worker.stop()
    _, asked = await client.send(start(waiting), ("status", {"run_id": waiting}))
    await engine.start_worker(failing_parcels(len))
    status = await client.wait_for_answer(asked)
    assert (status.outcome, status.run.version) == ("existing", 1)


async def test_a_queued_start_is_stored_once_for_any_number_of_requests(engine):
    worker, participant, client, command, waiting = await queue_one_start(engine, key="o-2")
    answers = await client.call_all(*[start(waiting, key="o-2")] * 5)
    assert {(each.outcome, each.run.status, each.run.version) for each in answers} == {
        ("existing", "running", 1)
    }
    other = await client.call("start", run_id=waiting, saga="parcel", input={"n": 3})
    assert other.outcome == "conflict"
    async with engine.database.transaction() as tx:
        assert (
            await tx.execute(text("SELECT count(*) FROM saga_engine.pending_request"))
        ).scalar_one() == 1
    participant.reply_makers.clear()
    await participant.publish(*succeed(command))
    await worker.events.wait_for(RunFinished, 2, status=Status.COMPLETED)


async def test_a_finished_run_is_found_while_all_slots_are_in_use(engine):
    worker, participant = (
        await engine.start_worker(max_concurrent_runs=1),
        await engine.start_participant(),
    )
    client = await engine.connect_client()
    done = await client.start()
    await worker.events.wait_for_end(done)
    participant.reply_makers["parcel.pack"] = no_reply
    await client.start()
    await participant.wait_for_commands("parcel.pack", 2)
    again = await client.call("start", run_id=done, saga="parcel", input={})
    assert (again.outcome, again.run.status) == ("existing", "completed")


async def test_a_queued_start_keeps_its_run_id_when_another_worker_has_slots(engine):
    """The run that starts is the one that was accepted."""
    old, participant, client, command, waiting = await queue_one_start(engine)
    await old.stop()
    await engine.start_worker(second_version(), max_concurrent_runs=1)
    other = await client.call(
        "start", run_id=waiting, saga="parcel", input={"n": 7, "address": "there"}
    )
    assert other.outcome == "conflict"
    participant.reply_makers.clear()
    again = await engine.start_worker(parcels())
    await participant.publish(*succeed(command))
    assert await again.events.wait_for_end(waiting) == Status.COMPLETED
    async with engine.database.transaction() as tx:
        shown = await run_queries.read_detail(tx, waiting)
        assert shown is not None
        assert shown.stored_run.run.input == {"n": 2}
