"""Starts: one run for repeated and concurrent starts, also in a caller's transaction."""

import asyncio

from sqlalchemy import text

from saga_engine.client import start_in_transaction
from saga_engine.identifiers import uuid7
from saga_engine.store import dead_letter_queries, run_queries
from saga_engine.telemetry.events import InternalErrorCaught, RunStarted
from saga_engine.vocabulary import Status
from tests.kit.parcels import parcels
from tests.kit.promises import check_promises


async def test_the_same_start_twice_is_one_run(engine_on_any_broker):
    worker, participant, client = (
        await engine_on_any_broker.start_worker(),
        await engine_on_any_broker.start_participant(),
        await engine_on_any_broker.connect_client(),
    )
    run_id = await client.start()
    await worker.events.wait_for_end(run_id)
    again = await client.call("start", run_id=run_id, saga="parcel", input={})
    assert (again.outcome, again.run.status) == ("existing", "completed")
    assert len(worker.events.matching(RunStarted)) == 1
    assert len(participant.received) == 3


async def test_the_same_start_twice_in_one_batch_is_one_run(engine):
    await (await engine.start_worker()).stop()  # it declares the queue and leaves no consumer
    client, participant = await engine.connect_client(), await engine.start_participant()
    run_id = str(uuid7())
    start = ("start", {"run_id": run_id, "saga": "parcel", "input": {}})
    sent = await client.send(start, start)
    worker = await engine.start_worker()
    first, second = await client.wait_for_answers(sent)
    assert [first.outcome, second.outcome] == ["accepted", "existing"]
    assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    assert len(participant.received) == 3


async def test_a_run_id_belongs_to_its_first_input(engine):
    worker, _, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    run_id = str(uuid7())
    start = {"run_id": run_id, "saga": "parcel"}
    first, second = await client.call_all(
        ("start", {**start, "input": {"to": "Ada"}}), ("start", {**start, "input": {"to": "Bob"}})
    )
    assert [first.outcome, second.outcome] == ["accepted", "conflict"]
    await worker.events.wait_for_end(run_id)
    third = await client.call("start", **start, input={"to": "Bob"})
    assert third.outcome == "conflict"


async def test_a_start_of_an_unknown_saga_reads_no_definition(
    engine,
):
    """Definitions are many and large, and clients may send many such starts."""
    worker, client = await engine.start_worker(), await engine.connect_client()
    hide = "ALTER TABLE saga_engine.definition RENAME COLUMN document TO hidden"
    async with engine.database.transaction() as tx:
        await tx.execute(text(hide))  # reading it fails from here on
    for more in ({}, {"version": 7}):
        start = {"run_id": str(uuid7()), "saga": "unknown", "input": {}, **more}
        assert (await client.call("start", **start)).outcome == "unknown_saga"
    other = {"run_id": str(uuid7()), "saga": "parcel", "version": 7, "input": {}}
    assert (await client.call("start", **other)).outcome == "unknown_saga"
    assert not worker.events.matching(InternalErrorCaught)
    await worker.stop()
    async with engine.database.transaction() as tx:
        await tx.execute(text(f"{hide.rpartition(' RENAME')[0]} RENAME COLUMN hidden TO document"))


async def test_a_key_with_the_same_input_names_the_same_run(engine):
    worker, _, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    run_id = await client.start(key="p-1", input={"to": "Ada", "n": 1})
    await worker.events.wait_for_end(run_id)
    again = await client.call(
        "start", run_id=str(uuid7()), saga="parcel", key="p-1", input={"n": 1, "to": "Ada"}
    )
    assert (again.outcome, str(again.run_id)) == ("existing", run_id)
    assert again.run.status == Status.COMPLETED


async def test_a_key_with_another_input_is_a_conflict_that_names_the_run(engine):
    await engine.start_worker()
    await engine.start_participant()
    client = await engine.connect_client()
    run_id = await client.start(key="p-1", input={"to": "Ada"})
    other = await client.call(
        "start", run_id=str(uuid7()), saga="parcel", key="p-1", input={"to": "Bob"}
    )
    assert (other.outcome, str(other.run_id)) == ("conflict", run_id)


async def test_two_starts_with_one_key_in_one_batch_start_one_run(engine):
    await (await engine.start_worker()).stop()
    client, _ = await engine.connect_client(), await engine.start_participant()
    requests = [
        ("start", {"run_id": str(uuid7()), "saga": "parcel", "key": "p-1", "input": {"n": n}})
        for n in (1, 1, 2)
    ]
    sent = await client.send(*requests)
    worker = await engine.start_worker()
    first, second, third = await client.wait_for_answers(sent)
    assert [first.outcome, second.outcome, third.outcome] == ["accepted", "existing", "conflict"]
    assert first.run_id == second.run_id == third.run_id
    assert await worker.events.wait_for_end(str(first.run_id)) == Status.COMPLETED


async def test_concurrent_starts_with_one_key_start_one_run(engine_on_any_broker):
    workers = [await engine_on_any_broker.start_worker() for _ in range(2)]
    participant, client = (
        await engine_on_any_broker.start_participant(),
        await engine_on_any_broker.connect_client(),
    )
    requests = [
        ("start", {"run_id": str(uuid7()), "saga": "parcel", "key": f"p-{n % 5}", "input": {}})
        for n in range(50)
    ]
    answers = await client.call_all(*requests)
    assert [answer.outcome for answer in answers].count("accepted") == 5
    assert len({answer.run_id for answer in answers}) == 5
    await participant.wait_for_commands("parcel.notify", 5)
    assert sum(len(worker.events.matching(RunStarted)) for worker in workers) == 5


async def test_an_invalid_input_is_refused_and_reserves_no_key(engine):
    worker, _, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    wrong = await client.call(
        "start", run_id=str(uuid7()), saga="parcel", key="p-1", input={"to": []}
    )
    assert wrong.outcome == "invalid"
    assert "to" in wrong.refusal.message
    await worker.events.wait_for_dead_letter("invalid_input")
    assert await client.start(key="p-1", input={"to": "Ada"})


async def test_an_existing_run_gets_no_other_key(engine):
    worker, _, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    run_id = await client.start(key="p-1", input={"to": "Ada"})
    for given in ({"to": "Ada"}, {"to": "Bob"}):
        other = await client.call("start", run_id=run_id, saga="parcel", key="p-2", input=given)
        assert (other.outcome, str(other.run_id)) == ("conflict", run_id)
    free = await client.start(key="p-2", input={"to": "Bob"})
    assert await worker.events.wait_for_end(free) == Status.COMPLETED
    again = await client.call(
        "start", run_id=str(uuid7()), saga="parcel", key="p-1", input={"to": "Ada"}
    )
    assert (again.outcome, str(again.run_id)) == ("existing", run_id)


async def test_a_start_is_committed_with_the_callers_own_rows(engine):
    worker, _ = await engine.start_worker(), await engine.start_participant()
    async with engine.database.transaction() as tx:
        await tx.execute(text("CREATE TABLE parcels (id text)"))
        await tx.execute(text("INSERT INTO parcels VALUES ('p-1')"))
        handle = await start_in_transaction(tx.connection, "parcel", {"to": "Ada"}, key="p-1")
    assert await worker.events.wait_for_end(str(handle.run_id)) == Status.COMPLETED
    async with engine.database.transaction() as tx:
        again = await start_in_transaction(tx.connection, "parcel", {"to": "Ada"}, key="p-1")
    assert (again.run_id, again.existing) == (handle.run_id, True)
    await check_promises(engine.database)


async def test_a_start_in_a_rolled_back_transaction_does_not_exist(engine):
    worker, _, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    handle = None
    try:
        async with engine.database.transaction() as tx:
            handle = await start_in_transaction(tx.connection, "parcel", {}, key="p-1")
            raise ZeroDivisionError  # noqa: TRY301 - the caller's own trouble
    except ZeroDivisionError:
        pass
    run_id = await client.start(key="p-1", input={"to": "Bob"})
    assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    assert handle is not None
    assert not worker.events.matching(RunStarted, run_id=str(handle.run_id))


async def test_a_stored_start_with_an_invalid_input_is_a_run_with_an_incident(engine):
    worker, _, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    async with engine.database.transaction() as tx:
        handle = await start_in_transaction(tx.connection, "parcel", {"to": []}, key="p-1")
    run_id = str(handle.run_id)
    incident = await worker.events.wait_for_incident(run_id)
    assert (incident.step, incident.cause) == ("pack", "input_invalid")
    status = await client.call("status", run_id=run_id)
    assert (status.outcome, status.run.status) == ("existing", "running")
    async with engine.database.transaction() as tx:
        assert await dead_letter_queries.read_page(tx, limit=10) == []
        assert await run_queries.find_by_key(tx, "parcel", "p-1") == run_id
    cancel = await client.call("cancel", run_id=run_id, operator="Ada", reason="not what I meant")
    assert cancel.outcome == "accepted"
    assert await worker.events.wait_for_end(run_id) == Status.COMPENSATED
    await check_promises(engine.database)


async def test_starts_of_all_kinds_in_one_batch_do_not_disturb_each_other(engine):
    worker, _, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    good = [
        ("start", {"run_id": str(uuid7()), "saga": "parcel", "input": {"n": n}}) for n in range(20)
    ]
    bad = [
        ("start", {"run_id": str(uuid7()), "saga": "nothing", "input": {}}),
        ("start", {"run_id": str(uuid7()), "saga": "parcel", "version": 9, "input": {}}),
        ("start", {"run_id": str(uuid7()), "saga": "parcel", "input": "text"}),
        ("start", {"run_id": "nonsense", "saga": "parcel", "input": {}}),
        ("cancel", {"run_id": str(uuid7()), "operator": "me", "reason": "because"}),
        ("status", {"run_id": str(uuid7())}),
        ("begin", {"run_id": str(uuid7())}),
    ]
    mixed = [each for pair in zip(good, bad * 3, strict=False) for each in pair]
    answers = await client.call_all(*mixed)
    outcomes = [answer.outcome for answer in answers]
    assert outcomes[0::2] == ["accepted"] * 20
    assert outcomes[1:14:2] == [
        *("unknown_saga", "unknown_saga", "invalid", "invalid"),
        *("unknown_run", "unknown_run", "invalid"),
    ]
    for _, body in good:
        assert await worker.events.wait_for_end(body["run_id"]) == Status.COMPLETED


async def test_a_start_without_a_version_gets_the_newest(engine):
    worker = await engine.start_worker(parcels(version=1), parcels(version=2))
    client, _ = await engine.connect_client(), await engine.start_participant()
    newest, named = await asyncio.wait_for(client.start(), 30), await client.start(version=1)
    assert worker.events.matching(RunStarted, run_id=newest)[0].version == 2
    assert worker.events.matching(RunStarted, run_id=named)[0].version == 1
