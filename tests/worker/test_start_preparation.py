"""An accepted start keeps its definition, and a problem with it is an incident."""

import asyncio

import pytest
from sqlalchemy import text

from saga_engine.client import start_in_transaction
from saga_engine.decider.triggers import Start
from saga_engine.identifiers import uuid7
from saga_engine.saga.definition import Saga
from saga_engine.store import audit, pending_requests, run_queries
from saga_engine.store.pending_requests import NewRequest, RequestKind
from saga_engine.store.trigger_data import serialize_trigger
from saga_engine.telemetry.events import MessageDeadLettered, RunStarted
from saga_engine.vocabulary import Status
from saga_engine.worker import start_preparation
from tests.kit.command_line import saga_engine
from tests.kit.engine import succeed
from tests.kit.parcels import parcels
from tests.kit.promises import check_promises
from tests.worker.versions import queue_one_start, register_definitions, second_version, start


def changed():
    """Version 1 with other steps, which must not happen."""
    saga = Saga("parcel", version=1, input=dict[str, str | int])

    @saga.step(command="parcel.pack", reply=dict[str, str])
    def wrap(parcel: dict[str, str | int]) -> dict[str, str | int]:
        return parcel

    @wrap.compensation(command="parcel.unpack")
    def unwrap(parcel: dict[str, str | int]) -> dict[str, str | int]:
        return parcel

    return saga


async def test_an_accepted_start_keeps_the_version_it_was_accepted_for(engine):
    old, participant, client, command, waiting = await queue_one_start(engine, key="o-2")
    await old.stop()
    new = await engine.start_worker(parcels(), second_version(), max_concurrent_runs=1)
    participant.reply_makers.clear()
    await participant.publish(*succeed(command))
    assert await new.events.wait_for_end(waiting) == Status.COMPLETED
    [started] = new.events.matching(RunStarted, run_id=waiting)
    assert started.version == 1
    status = await client.call("status", run_id=waiting)
    assert (status.outcome, status.run.status, status.run.version) == ("existing", "completed", 1)
    assert not new.events.matching(MessageDeadLettered)


async def test_an_accepted_start_waits_for_a_worker_with_its_version(engine):
    old, participant, client, command, waiting = await queue_one_start(engine)
    await old.stop()
    new = await engine.start_worker(second_version())
    other = await client.start(input={"n": 1, "address": "here"})
    status = await client.call("status", run_id=waiting)
    assert (status.run.status, status.run.version) == ("running", 1)
    participant.reply_makers.clear()
    assert not new.events.matching(RunStarted, run_id=waiting)
    again = await engine.start_worker(parcels())
    await participant.publish(*succeed(command))
    assert await again.events.wait_for_end(waiting) == Status.COMPLETED
    assert not new.events.matching(RunStarted, run_id=waiting)
    assert new.events.matching(RunStarted, run_id=other)


@pytest.mark.parametrize("saga", ["parcel", parcels()], ids=["by name", "by definition"])
async def test_a_stored_start_gets_the_newest_version_at_the_time_of_the_call(engine, saga):
    await register_definitions(engine, parcels())
    async with engine.database.transaction() as tx:
        handle = await start_in_transaction(tx.connection, saga, {"n": 1})
    await register_definitions(engine, second_version())
    assert handle.version == 1
    worker, _ = (
        await engine.start_worker(parcels(), second_version()),
        await engine.start_participant(),
    )
    assert await worker.events.wait_for_end(str(handle.run_id)) == Status.COMPLETED
    [started] = worker.events.matching(RunStarted, run_id=str(handle.run_id))
    assert started.version == 1


async def test_a_start_of_a_changed_version_stops_no_worker_from_starting(
    engine,
):
    await register_definitions(engine, parcels())
    async with engine.database.transaction() as tx:
        waiting = str((await start_in_transaction(tx.connection, "parcel", {"n": 1})).run_id)
    other = await engine.start_worker(changed())
    async with engine.database.transaction() as tx:
        mine = str((await start_in_transaction(tx.connection, "parcel", {"n": 2})).run_id)
    await engine.start_participant()
    assert await other.events.wait_for_end(mine) == Status.COMPLETED
    assert not other.events.matching(RunStarted, run_id=waiting)
    await other.stop()
    again = await engine.start_worker(parcels())
    assert await again.events.wait_for_end(waiting) == Status.COMPLETED


async def test_an_accepted_start_with_a_taken_key_is_a_run_with_an_incident(engine):
    worker, _, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    holder, run_id = await client.start(key="o-1"), str(uuid7())
    kind, body = serialize_trigger(Start(run_id, "o-1", {"n": 1}))
    mark = parcels().fingerprint
    item = NewRequest(
        kind=kind, run_id=run_id, body=body, saga="parcel", version=1, fingerprint=mark, key="o-1"
    )
    async with engine.database.transaction() as tx:
        await pending_requests.record(tx, [item])
    incident = await worker.events.wait_for_incident(run_id)
    assert incident.cause == "key_conflict"
    async with engine.database.transaction() as tx:
        detail = await run_queries.read_detail(tx, run_id)
        assert detail is not None
        assert holder in detail.incidents[0].message
        assert detail.stored_run.run.key is None
        assert await run_queries.find_by_key(tx, "parcel", "o-1") == holder


async def test_a_queued_run_holds_a_limited_number_of_requests(engine):
    worker, participant, client, command, waiting = await queue_one_start(engine)
    cancel = ("cancel", {"run_id": waiting, "operator": "Ada", "reason": "too late"})
    sent = await client.send(*[cancel] * 12)
    refused = await client.wait_for_answers(sent[10:])
    assert [each.outcome for each in refused] == ["refused"] * 2
    assert "max_pending_requests_per_run" in refused[0].refusal.message
    async with engine.database.transaction() as tx:
        held = text("SELECT count(*) FROM saga_engine.pending_request WHERE awaits_start")
        assert (await tx.execute(held)).scalar_one() == 10
    participant.reply_makers.clear()
    await participant.publish(*succeed(command))
    assert await worker.events.wait_for_end(waiting) == Status.COMPENSATED
    assert (await client.wait_for_answer(sent[0])).outcome == "accepted"
    await check_promises(engine.database)


async def test_a_queued_run_is_cancelled_from_the_command_line(engine):
    worker, participant, _, command, waiting = await queue_one_start(engine)
    ran = await saga_engine(
        *("cancel", waiting, "--reason", "too late", "--operator", "ann"),
        database_url=engine.database_url,
        client_timeout="0.1",
    )
    assert (ran.exit_code, "It is recorded, and the next worker" in ran.err) == (124, True)
    held = text(
        "SELECT count(*) FROM saga_engine.pending_request WHERE awaits_start AND kind = 'cancel'"
    )
    async with asyncio.timeout(60):
        while True:
            async with engine.database.transaction() as tx:
                if (await tx.execute(held)).scalar_one():
                    break
    participant.reply_makers.clear()
    await participant.publish(*succeed(command))
    assert await worker.events.wait_for_end(waiting) == Status.COMPENSATED
    async with engine.database.transaction() as tx:
        assert [each.outcome for each in await audit.list_for_run(tx, waiting)] == ["accepted"]


async def test_a_deferred_start_keeps_the_requests_for_its_run(engine):
    """A cancel is not answered `unknown_run` while its start is deferred for a key."""
    worker, _ = await engine.start_worker(), await engine.start_participant()
    run_id, mark = str(uuid7()), parcels().fingerprint
    kind, body = serialize_trigger(Start(run_id, "o-2", {"n": 1}))
    waiting = NewRequest(
        kind=kind, run_id=run_id, body=body, saga="parcel", version=1, fingerprint=mark, key="o-2"
    )
    cancel = NewRequest(
        kind=RequestKind.CANCEL,
        run_id=run_id,
        body={"operator": "Ada", "reason": "too late"},
        awaits_start=True,
    )
    async with engine.database.transaction() as holder:
        await holder.execute(
            text(
                "SELECT pg_advisory_xact_lock("
                "hashtextextended(format('saga-engine key %s/%s', 'parcel', 'o-2'), 0))"
            )
        )
        async with engine.database.transaction() as tx:
            await pending_requests.record(tx, [waiting, cancel])
        async with asyncio.timeout(60):
            while not await is_deferred(engine):
                pass
    assert await worker.events.wait_for_end(run_id) == Status.COMPENSATED


async def is_deferred(engine):
    """Whether the worker has deferred the start."""
    async with engine.database.transaction() as tx:
        query = text(
            "SELECT count(*) FROM saga_engine.pending_request WHERE not_before IS NOT NULL"
        )
        return (await tx.execute(query)).scalar_one() > 0


async def test_an_accepted_start_that_hits_a_bug_is_a_run_with_an_incident(engine, monkeypatch):
    """`decide` is patched to raise for one start."""
    plant(monkeypatch, "decide")
    worker, _, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    async with engine.database.transaction() as tx:
        broken = str(
            (await start_in_transaction(tx.connection, "parcel", BROKEN, key="o-1")).run_id
        )
        valid = str((await start_in_transaction(tx.connection, "parcel", {"n": 1})).run_id)
    assert (await worker.events.wait_for_incident(broken)).cause == "internal_error"
    assert await worker.events.wait_for_end(valid) == Status.COMPLETED
    assert not worker.events.matching(MessageDeadLettered)
    status = await client.call("status", run_id=broken)
    assert (status.outcome, status.run.status, status.run.key) == ("existing", "running", "o-1")
    monkeypatch.undo()
    cancel = await client.call("cancel", run_id=broken, operator="Ada", reason="too late")
    assert cancel.outcome == "accepted"
    assert await worker.events.wait_for_end(broken) == Status.COMPENSATED
    await check_promises(engine.database)


async def test_an_accepted_start_that_cannot_start_blocked_releases_its_key(engine, monkeypatch):
    plant(monkeypatch, "decide", "start_blocked")
    worker, _ = await engine.start_worker(), await engine.start_participant()
    async with engine.database.transaction() as tx:
        broken = str(
            (await start_in_transaction(tx.connection, "parcel", BROKEN, key="o-1")).run_id
        )
    await worker.events.wait_for_dead_letter("internal_error", run_id=broken)
    async with engine.database.transaction() as tx:
        again = await start_in_transaction(tx.connection, "parcel", {"n": 1}, key="o-1")
    assert not again.existing
    assert await worker.events.wait_for_end(str(again.run_id)) == Status.COMPLETED


BROKEN = {"n": 13}


def plant(monkeypatch, *names):
    """Patch functions of `start_preparation` to raise for one input."""
    for name in names:
        original = getattr(start_preparation, name)
        monkeypatch.setattr(start_preparation, name, broken_for_one_input(original))


def broken_for_one_input(function):
    def broken(*arguments, **named):
        if any(isinstance(each, Start) and each.input == BROKEN for each in arguments):
            raise KeyError("a bug")
        return function(*arguments, **named)

    return broken


@pytest.mark.parametrize(
    ("lowered", "key"),
    [
        ({"max_body_json_values": 10}, "o-1"),
        ({"max_body_depth": 2}, "o-1"),
        ({"max_request_text_bytes": 64}, "o" * 100),
    ],
    ids=lambda each: "".join(each) if isinstance(each, dict) else "",
)
async def test_an_accepted_start_beyond_a_lowered_limit_is_a_run_with_an_incident(
    engine, lowered, key
):
    deep = {"n": 1, "to": "here"}
    for _ in range(30):
        deep = {"n": 1, "in": deep}
    await register_definitions(engine, parcels())
    async with engine.database.transaction() as tx:
        run_id = str((await start_in_transaction(tx.connection, "parcel", deep, key=key)).run_id)
    worker, client = await engine.start_worker(**lowered), await engine.connect_client()
    assert (await worker.events.wait_for_incident(run_id)).cause == "input_invalid"
    async with engine.database.transaction() as tx:
        detail = await run_queries.read_detail(tx, run_id)
        assert detail is not None
        assert next(iter(lowered)) in detail.incidents[0].message
        assert await run_queries.find_by_key(tx, "parcel", key) == run_id
    assert not worker.events.matching(MessageDeadLettered)
    cancel = await client.call("cancel", run_id=run_id, operator="Ada", reason="too late")
    assert cancel.outcome == "accepted"


async def test_a_start_accepted_by_a_worker_runs_after_any_limit_is_lowered(engine):
    old, _, client, _, _ = await queue_one_start(engine)
    second_version = str(uuid7())
    long = {"text": "x" * 100_000}
    [answer] = await client.call_all(start(second_version, input=long, key="k" * 200))
    assert answer.outcome == "accepted"
    await old.stop()
    lowered = {"max_body_bytes": 4096, "max_body_json_values": 10, "max_request_text_bytes": 64}
    again = await engine.start_worker(max_concurrent_runs=5, **lowered)
    await again.events.wait_for(RunStarted, run_id=second_version)
    assert not again.events.matching(MessageDeadLettered)
