"""Servers that go away, workers that die, rows that are damaged: nothing is lost, others go on."""

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from saga_engine.backoff import Backoff
from saga_engine.client import start_in_transaction
from saga_engine.decider.triggers import Cancel, ResolveIncident, Start, serialize_trigger
from saga_engine.embedded.postgres import PostgresServer
from saga_engine.identifiers import uuid7
from saga_engine.settings import Settings
from saga_engine.store import audit, checked_requests, dead_letters, outbox, pending_requests
from saga_engine.store.audit import OperatorAction
from saga_engine.store.database import Database
from saga_engine.store.migrate import upgrade
from saga_engine.store.pending_requests import NewRequest
from saga_engine.telemetry.events import (
    BrokerConnectionChanged,
    DatabaseUnavailable,
    IncidentResolved,
    InternalErrorCaught,
    MessageDeadLettered,
    MessageHeld,
    MessagesConsumed,
    OperatorActionProcessed,
    ProcessStopped,
    RunStarted,
)
from saga_engine.vocabulary import Resolution, Status
from saga_engine.worker import batch_runner, decode, loops
from tests.kit.broker_faults import lose_after_confirm, nack
from tests.kit.engine import engine_harness, no_reply, reject, succeed
from tests.kit.parcels import COMMANDS, failing_parcels, parcels
from tests.kit.processes import wait_for_exit
from tests.kit.promises import check_promises
from tests.kit.proxy import running_proxy

BLINK = timedelta(milliseconds=300)
_HOLD_RUN = text("SELECT FROM saga_engine.run WHERE run_id = CAST(:run_id AS uuid) FOR UPDATE")
_HOLD_INCIDENTS = text(
    "SELECT FROM saga_engine.incident WHERE run_id = ANY (CAST(:run_ids AS uuid[])) FOR UPDATE"
)


async def operate(engine, run_id, trigger):
    """Put an operator's request on record, as the command line does; its id."""
    audit_id = str(uuid7())
    kind, body = serialize_trigger(trigger)
    action = trigger.resolution.value if isinstance(trigger, ResolveIncident) else kind
    async with engine.database.transaction() as tx:
        await audit.record(
            tx, [OperatorAction(audit_id, trigger.operator, action, trigger.reason, run_id)]
        )
        await checked_requests.record_operator_requests(
            tx, [NewRequest(kind, run_id, body, audit_id=audit_id)]
        )
    return audit_id


async def verdict(engine, audit_id):
    async with engine.database.transaction() as tx:
        found = await audit.find(tx, audit_id)
    assert found is not None
    return found.outcome, found.message


async def test_a_command_nobody_is_bound_for_needs_a_person_and_can_be_retried(
    engine_on_any_broker,
):
    worker, client = (
        await engine_on_any_broker.start_worker(),
        await engine_on_any_broker.connect_client(),
    )
    run_id = await client.start()
    incident = await worker.events.wait_for_incident(run_id)
    assert (incident.step, incident.cause) == ("pack", "unroutable")
    await engine_on_any_broker.start_participant()
    audit_id = await operate(
        engine_on_any_broker, run_id, ResolveIncident(1, Resolution.RETRY, "ada", "bound")
    )
    assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    assert (await verdict(engine_on_any_broker, audit_id))[0] == "accepted"
    [detail] = (await check_promises(engine_on_any_broker.database)).values()
    returned = [each for each in detail.journal if each.data.get("unroutable")]
    assert len(returned) == 2


async def test_an_operator_skips_completes_and_abandons(engine):
    worker, client = await engine.start_worker(), await engine.connect_client()
    await engine.start_participant(COMMANDS[2:])  # nobody packs
    asked = {
        Resolution.SKIP: Status.COMPLETED,
        Resolution.COMPLETE: Status.COMPLETED,
        Resolution.ABANDON: Status.ABANDONED,
    }
    for resolution, status in asked.items():
        run_id = await client.start()
        await worker.events.wait_for_incident(run_id)
        result = {"did": "by hand"} if resolution is Resolution.COMPLETE else None
        audit_id = await operate(
            engine, run_id, ResolveIncident(1, resolution, "ada", "so be it", result)
        )
        assert await worker.events.wait_for_end(run_id) == status
        await worker.events.wait_for(IncidentResolved, run_id=run_id, resolution=resolution)
        assert (await verdict(engine, audit_id))[0] == "accepted"
    await check_promises(engine.database)


async def test_incidents_that_somebody_holds_keep_no_start_waiting(engine):
    worker = await engine.start_worker(database_lock_timeout=1.5)  # longer than they are put by
    await engine.start_participant(COMMANDS[2:])  # nobody packs
    client = await engine.connect_client()
    stuck = [await client.start() for _ in range(2)]
    for each in stuck:
        await worker.events.wait_for_incident(each)
    async with engine.database.transaction() as tx:
        await tx.execute(_HOLD_INCIDENTS, {"run_ids": stuck})
        for each in stuck:
            await operate(engine, each, ResolveIncident(1, Resolution.SKIP, "ada", "because"))
        for _ in range(3):
            async with engine.database.transaction() as own:
                mine = await start_in_transaction(own.connection, "parcel", {}, key=str(uuid7()))
            await worker.events.wait_for(RunStarted, run_id=str(mine.run_id))
        assert not worker.events.matching(OperatorActionProcessed)
    await worker.events.wait_for(OperatorActionProcessed, 2, accepted=True)


async def test_an_operator_who_asks_for_the_impossible_is_told_why(engine):
    worker, participant, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    run_id = await client.start()
    await worker.events.wait_for_end(run_id)
    for trigger in (ResolveIncident(1, Resolution.RETRY, "ada", "x"), Cancel("ada", "too late")):
        audit_id = await operate(engine, run_id, trigger)
        await worker.events.wait_for(OperatorActionProcessed, accepted=False, run_id=run_id)
        async with asyncio.timeout(20):
            while (await verdict(engine, audit_id))[0] is None:
                await client.call("status", run_id=run_id)
        assert (await verdict(engine, audit_id))[0] == "refused"
    audit_id = await operate(engine, str(uuid7()), Cancel("ada", "nobody"))
    await worker.events.wait_for(OperatorActionProcessed, 3, accepted=False)
    assert "no such run" in (await verdict(engine, audit_id))[1]
    assert len(participant.received) == 3


async def test_a_cancelled_run_awaits_what_is_in_flight_and_is_undone(engine):
    worker, participant, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    participant.reply_makers["parcel.send"] = no_reply
    run_id = await client.start()
    [command] = await participant.wait_for_commands("parcel.send")
    answer = await client.call("cancel", run_id=run_id, operator="ada", reason="changed my mind")
    assert answer.outcome == "accepted"
    await participant.publish(*succeed(command))
    assert await worker.events.wait_for_end(run_id) == Status.COMPENSATED
    assert participant.command_names == [
        "parcel.pack",
        "parcel.send",
        "parcel.recall",
        "parcel.unpack",
    ]
    await check_promises(engine.database)


async def test_a_reply_for_another_workers_definition_waits_for_that_worker(engine):
    first = await engine.start_worker(parcels(version=1))
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.pack"] = no_reply
    run_id = await client.start(version=1)
    [command] = await participant.wait_for_commands("parcel.pack")
    await first.stop()
    second = await engine.start_worker(parcels(version=2))
    await participant.publish(*succeed(command))
    await second.events.wait_for(MessageHeld, run_id=run_id)
    third = await engine.start_worker(parcels(version=1), parcels(version=2))
    assert await third.events.wait_for_end(run_id) == Status.COMPLETED
    await check_promises(engine.database)


async def test_a_start_for_another_workers_saga_waits_for_that_worker(engine):
    first = await engine.start_worker(failing_parcels(lambda _: None))
    await first.stop()
    second, client = await engine.start_worker(), await engine.connect_client()
    await engine.start_participant()
    run_id = str(uuid7())
    await client.send(("start", {"run_id": run_id, "saga": "fragile", "input": {}}))
    await second.events.wait_for(MessageHeld, run_id=run_id)
    third = await engine.start_worker(failing_parcels(lambda _: None))
    assert await third.events.wait_for_end(run_id) == Status.COMPLETED


async def test_commands_that_a_dead_worker_left_behind_are_sent_by_another(
    engine, development_broker
):
    patient = {"outbox_resend_after": 0.4, "broker_confirm_timeout": 0.2}
    worker, client = await engine.start_worker(**patient), await engine.connect_client()
    participant = await engine.start_participant()
    rule = development_broker.faults.on_publish(
        lambda message: message.routing_key == "parcel.pack", nack, times=1
    )
    run_id = await client.start()
    async with asyncio.timeout(20):
        await rule.exhausted.wait()
    await worker.crash()
    assert not participant.received
    other = await engine.start_worker(**patient)
    assert await other.events.wait_for_end(run_id) == Status.COMPLETED
    [command] = await participant.wait_for_commands("parcel.pack")
    assert command.command.attempt == 1
    await other.stop()
    async with engine.database.transaction() as tx:
        assert (await outbox.backlog(tx)).pending == 0
    await check_promises(engine.database)


async def test_a_command_the_broker_lost_after_confirming_costs_a_retry_and_no_run(
    engine, development_broker
):
    worker = await engine.start_worker(parcels(timeout=BLINK))
    participant, client = await engine.start_participant(), await engine.connect_client()
    development_broker.faults.on_publish(
        lambda message: message.routing_key == "parcel.send", lose_after_confirm, times=1
    )
    run_id = await client.start()
    assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    [command] = await participant.wait_for_commands("parcel.send")
    assert command.command.attempt == 2
    await check_promises(engine.database)


async def test_nothing_is_acknowledged_before_it_is_committed(engine_on_any_broker):
    worker, participant, client = (
        await engine_on_any_broker.start_worker(),
        await engine_on_any_broker.start_participant(),
        await engine_on_any_broker.connect_client(),
    )
    participant.reply_makers["parcel.send"] = no_reply
    run_id = await client.start()
    [command] = await participant.wait_for_commands("parcel.send")
    async with engine_on_any_broker.database.transaction() as tx:
        await tx.execute(text("SELECT run_id FROM saga_engine.run FOR UPDATE"))
        before = len(worker.events.matching(MessagesConsumed, queue="saga.replies"))
        await participant.publish(*succeed(command))
        await worker.events.wait_for(MessagesConsumed, before + 1, queue="saga.replies")
        await worker.crash()  # it has the reply and waits for the row
    other = await engine_on_any_broker.start_worker()
    assert await other.events.wait_for_end(run_id) == Status.COMPLETED
    consumed = other.events.matching(MessagesConsumed, queue="saga.replies")
    assert sum(fact.redelivered for fact in consumed) == 1
    await check_promises(engine_on_any_broker.database)


async def test_a_broker_that_cuts_every_connection_loses_nothing(engine, development_broker):
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
        development_broker.faults.cut_connections()
        await worker.events.wait_for(BrokerConnectionChanged, epochs + 2, state="connected")
        await (await engine.connect_client()).call("status", run_id=runs[0])
        client = await engine.connect_client()
    for run_id in runs:
        assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    await check_promises(engine.database)


async def test_a_database_that_goes_away_is_waited_for(development_broker):
    async with PostgresServer() as postgres:
        url = await postgres.create_database("away")
        await upgrade(url)
        async with engine_harness(development_broker.url, url) as engine:
            worker, participant = await engine.start_worker(), await engine.start_participant()
            client = await engine.connect_client()
            participant.reply_makers["parcel.send"] = no_reply
            run_id = await client.start()
            [command] = await participant.wait_for_commands("parcel.send")
            children = children_of(postgres.pid)
            postgres.kill()
            await participant.publish(*succeed(command))
            await worker.events.wait_for(DatabaseUnavailable, operation="batch")
            for child in children:  # PostgreSQL does not start beside what is left of itself
                await wait_for_exit(child)
            await postgres.restart()
            assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
            async with Database(url, Settings()) as database:
                await check_promises(database)


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def test_a_schema_that_is_not_there_is_waited_for_and_nothing_is_set_aside(engine):
    worker, participant, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    participant.reply_makers["parcel.send"] = no_reply
    run_id = await client.start()
    [command] = await participant.wait_for_commands("parcel.send")
    async with engine.database.transaction() as tx:
        await tx.execute(text("ALTER TABLE saga_engine.event RENAME TO other"))
    await participant.publish(*succeed(command))
    await engine.publish_raw(b"rubbish", correlation_id="?", message_id="rubbish")
    await worker.events.wait_for(DatabaseUnavailable, 3, operation="batch")
    async with engine.database.transaction() as tx:
        await tx.execute(text("ALTER TABLE saga_engine.other RENAME TO event"))
    assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    async with engine.database.transaction() as tx:
        [letter] = await dead_letters.read_page(tx, limit=10)
        assert letter.message.message_id == "rubbish"


async def test_who_waits_for_the_database_goes_on_as_soon_as_somebody_else_has_come_through(
    engine, monkeypatch
):
    # longer than this test waits for anything
    monkeypatch.setattr(batch_runner, "_BACKOFF", Backoff(600.0, 600.0))
    worker, participant, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    participant.reply_makers["parcel.tell"] = no_reply
    first, second = await client.start(), await client.start()
    told = {
        str(each.command.run_id): each
        for each in await participant.wait_for_commands("parcel.tell", 2)
    }
    async with engine.database.transaction() as tx:
        await tx.execute(text("ALTER TABLE saga_engine.event RENAME TO other"))
    await participant.publish(*succeed(told[first]))
    await worker.events.wait_for(DatabaseUnavailable, operation="batch")
    async with engine.database.transaction() as tx:
        await tx.execute(text("ALTER TABLE saga_engine.other RENAME TO event"))
    await participant.publish(*succeed(told[second]))
    await worker.events.wait_for_end(second)
    await worker.events.wait_for_end(first)


@pytest.fixture
async def slow():
    """A database, and the proxy through which it is as slow as the test wants."""
    async with PostgresServer(use_tcp=True) as postgres:
        url = await postgres.create_database("slow")
        await upgrade(url)
        async with running_proxy(url) as proxy:
            yield url, proxy


@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", ["delivered", "recorded"])
async def test_a_database_too_slow_for_all_at_once_is_given_less(development_broker, slow, way):
    run_ids = [str(uuid7()) for _ in range(12)]
    parcel = {"sku": "A1", "wrapping": "x" * 100_000}
    url, proxy = slow
    async with engine_harness(
        development_broker.url, url, batch_size=12, database_transaction_timeout=1.5
    ) as engine:
        client, first = await engine.connect_client(), await engine.start_worker()
        await first.stop()  # it has made the queue, and the saga is known
        if way == "delivered":
            starts = [{"run_id": each, "saga": "parcel", "input": parcel} for each in run_ids]
            await client.send(*(("start", each) for each in starts))
        else:
            async with engine.database.transaction() as tx:
                items = [
                    NewRequest("start", each, _start(each, parcel), "parcel") for each in run_ids
                ]
                await pending_requests.record(tx, items)
        proxy.bytes_per_s = 1_000_000.0
        worker = await engine.start_worker(database_url=proxy.url)
        for run_id in run_ids:
            await worker.events.wait_for(RunStarted, run_id=run_id)
        assert worker.events.matching(DatabaseUnavailable), (
            "all of them at once would have been too much"
        )
        proxy.heal()


def _start(run_id, parcel):
    return serialize_trigger(Start(run_id, None, parcel))[1]


async def test_a_damaged_row_sets_its_reply_aside_and_no_other(engine):
    worker, participant, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    participant.reply_makers["parcel.send"] = no_reply
    runs = [await client.start() for _ in range(5)]
    commands = await participant.wait_for_commands("parcel.send", 5)
    await damage(engine, runs[2])
    participant.reply_makers["parcel.send"] = succeed
    await participant.publish(*(reply for command in commands for reply in succeed(command)))
    await worker.events.wait_for_dead_letter("internal_error", run_id=runs[2])
    for run_id in (runs[0], runs[1], runs[3], runs[4]):
        assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    assert worker.events.matching(InternalErrorCaught, operation="batch")
    await forget(engine, runs[2])


async def test_a_damaged_row_that_is_due_does_not_hold_up_the_timers_of_others(engine):
    worker = await engine.start_worker(parcels(timeout=BLINK))
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.send"] = no_reply
    damaged = await client.start()
    await participant.wait_for_commands("parcel.send")
    await damage(engine, damaged)
    other = await client.start()
    assert await worker.events.wait_for_end(other) == Status.COMPENSATED
    await worker.events.wait_for(InternalErrorCaught, operation="due_runs", run_id=damaged)
    await forget(engine, damaged)


async def test_a_due_run_that_somebody_holds_keeps_none_behind_a_damaged_one_waiting(engine):
    worker = await engine.start_worker(parcels(timeout=BLINK), database_lock_timeout=0.1)
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.send"] = no_reply
    held, damaged = await client.start(), await client.start()
    await participant.wait_for_commands("parcel.send", 2)
    await damage(engine, damaged)
    async with engine.database.transaction() as tx:
        await tx.execute(_HOLD_RUN, {"run_id": held})
        await worker.events.wait_for(InternalErrorCaught, operation="due_runs", run_id=damaged)
        assert await worker.events.wait_for_end(await client.start()) == Status.COMPENSATED
    assert await worker.events.wait_for_end(held) == Status.COMPENSATED
    await forget(engine, damaged)


async def test_a_request_about_a_damaged_run_is_refused_and_holds_up_no_other(engine):
    worker, participant, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    participant.reply_makers["parcel.send"] = no_reply
    damaged, other = await client.start(), await client.start()
    sent = await participant.wait_for_commands("parcel.send", 2)
    [command] = [each for each in sent if str(each.command.run_id) == other]
    await damage(engine, damaged)
    first = await operate(engine, damaged, Cancel("ada", "it looks odd"))
    second = await operate(engine, other, Cancel("ada", "this one too"))
    await worker.events.wait_for(OperatorActionProcessed, run_id=other, accepted=True)
    await worker.events.wait_for(OperatorActionProcessed, run_id=damaged, accepted=False)
    assert (await verdict(engine, first))[0] == "refused"
    assert (await verdict(engine, second))[0] == "accepted"
    await participant.publish(*succeed(command))
    assert await worker.events.wait_for_end(other) == Status.COMPENSATED
    await forget(engine, damaged)


async def test_a_request_that_cannot_be_read_is_set_aside_and_holds_up_no_other(engine):
    worker, _, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    audit_id, run_id = str(uuid7()), str(uuid7())
    rubbish: dict[str, Any] = {
        "resolve": {"what": 1},
        "start": {},
        "reply": {"step": "x"},
        "cancel": [],
    }
    async with engine.database.transaction() as tx:
        await audit.record(tx, [OperatorAction(audit_id, "ada", "retry", "because", run_id)])
        items = [NewRequest(kind, run_id, body, saga="parcel") for kind, body in rubbish.items()]
        await pending_requests.record(tx, [replace(items[0], audit_id=audit_id), *items[1:]])
        mine = await start_in_transaction(tx.connection, "parcel", {}, key="k")
    assert await worker.events.wait_for_end(str(mine.run_id)) == Status.COMPLETED
    await worker.events.wait_for(OperatorActionProcessed, run_id=run_id, accepted=False)
    await worker.events.wait_for(MessageDeadLettered, len(rubbish), reason="bad_request")
    async with engine.database.transaction() as tx:
        found = await dead_letters.read_page(tx, limit=10)
        stored = [await dead_letters.find(tx, each.id) for each in found]
    letters = [each.message for each in stored if each is not None]
    assert len(letters) == len(found)
    assert {each.type: json.loads(each.body) for each in letters} == rubbish
    assert await worker.events.wait_for_end(await client.start()) == Status.COMPLETED


async def damage(engine, run_id):
    async with engine.database.transaction() as tx:
        await tx.execute(
            text(
                "UPDATE saga_engine.run SET state = '{\"steps\": 7}'"
                " WHERE run_id = CAST(:run_id AS uuid)"
            ),
            {"run_id": run_id},
        )


async def forget(engine, run_id):
    """A damaged run keeps no promise."""
    async with engine.database.transaction() as tx:
        for table in ("event", "outbox", "run"):
            await tx.execute(
                text(f"DELETE FROM saga_engine.{table} WHERE run_id = CAST(:run_id AS uuid)"),
                {"run_id": run_id},
            )


async def test_a_mapping_that_raises_needs_a_person_and_stops_nobody(engine):
    def explode(parcel):
        raise RecursionError(parcel)

    worker = await engine.start_worker(failing_parcels(explode), parcels())
    _, client = await engine.start_participant(), await engine.connect_client()
    broken = await client.start("fragile")
    assert (await worker.events.wait_for_incident(broken)).cause == "mapping_failed"
    assert await worker.events.wait_for_end(await client.start()) == Status.COMPLETED
    await check_promises(engine.database)


async def test_a_bug_in_one_batch_of_deliveries_is_told_and_the_others_go_on(engine, monkeypatch):
    reading, bugs = decode.decode_deliveries, iter([KeyError("a bug")])

    async def read_or_break(*arguments):
        for bug in bugs:
            raise bug
        return await reading(*arguments)

    monkeypatch.setattr(loops, "read_apart", read_or_break)
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
    await worker.stop()  # what it could not take goes to another
    other = await engine.start_worker()
    assert await other.events.wait_for_end(held) == Status.COMPLETED


async def test_stopping_finishes_what_is_in_hand(engine_on_any_broker):
    worker, participant, client = (
        await engine_on_any_broker.start_worker(),
        await engine_on_any_broker.start_participant(),
        await engine_on_any_broker.connect_client(),
    )
    participant.reply_makers["parcel.tell"] = reject
    run_id = await client.start()
    await worker.events.wait_for(RunStarted, run_id=run_id)
    await worker.stop()
    [stopped] = worker.events.matching(ProcessStopped)
    assert stopped.clean
    other = await engine_on_any_broker.start_worker()
    async with asyncio.timeout(20):
        while (await client.call("status", run_id=run_id)).status != Status.COMPENSATED:
            pass
    await other.stop()
    await check_promises(engine_on_any_broker.database)


async def test_what_cannot_be_finished_in_time_goes_to_another_worker(engine):
    worker = await engine.start_worker(shutdown_timeout=0.5)
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.send"] = no_reply
    run_id = await client.start()
    [command] = await participant.wait_for_commands("parcel.send")
    async with engine.database.transaction() as tx:
        await tx.execute(text("SELECT run_id FROM saga_engine.run FOR UPDATE"))
        before = len(worker.events.matching(MessagesConsumed, queue="saga.replies"))
        await participant.publish(*succeed(command))
        await worker.events.wait_for(MessagesConsumed, before + 1, queue="saga.replies")
        await worker.stop()
        [stopped] = worker.events.matching(ProcessStopped)
        assert not stopped.clean
    other = await engine.start_worker()
    assert await other.events.wait_for_end(run_id) == Status.COMPLETED
    await check_promises(engine.database)
