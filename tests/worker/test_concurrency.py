"""Concurrency on one run: two workers, fifty operators, two versions of its definition."""

import asyncio
from functools import partial

from sqlalchemy import text

from saga_engine.decider.triggers import Cancel, ResolveIncident
from saga_engine.saga.definition import Saga
from saga_engine.telemetry.events import (
    IncidentOpened,
    MessageHeld,
    MessageIgnored,
    MessagesConsumed,
    OperatorActionProcessed,
    RunFinished,
)
from saga_engine.vocabulary import Resolution, Status
from tests.kit.connections import wait_until
from tests.kit.engine import no_reply, reject, reply_twice, succeed
from tests.kit.parcels import COMMANDS, parcels
from tests.kit.promises import check_promises
from tests.worker.steps import HOLD_BATCHES, audit_outcome, record_operator_action

PEOPLE = 50


WAITING = text(
    """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'"""
)


async def test_two_workers_with_replies_to_one_attempt_serialize(
    engine_on_any_broker,
):
    workers = [await engine_on_any_broker.start_worker() for _ in range(2)]
    participant, client = (
        await engine_on_any_broker.start_participant(),
        await engine_on_any_broker.connect_client(),
    )
    participant.reply_makers["parcel.send"] = no_reply
    for number in range(1, 6):
        run_id = await client.start()
        command = (await participant.wait_for_commands("parcel.send", number))[-1]
        async with engine_on_any_broker.database.transaction() as tx:
            await tx.execute(HOLD_BATCHES)
            before = [len(each.events.matching(MessagesConsumed)) for each in workers]
            await participant.publish(*reply_twice(command))
            for worker, count in zip(workers, before, strict=True):
                await worker.events.wait_for(MessagesConsumed, count + 1)
            async with asyncio.timeout(60):
                while (await tx.execute(WAITING)).scalar_one() < len(workers):
                    pass
        await wait_until(partial(events_of, workers, RunFinished, run_id))
        assert [each.status for each in events_of(workers, RunFinished, run_id)] == [
            Status.COMPLETED
        ]
        await wait_until(partial(events_of, workers, MessageIgnored, run_id))
        assert [each.reason for each in events_of(workers, MessageIgnored, run_id)] == ["duplicate"]
    assert participant.command_names == ["parcel.pack", "parcel.send", "parcel.notify"] * 5
    await check_promises(engine_on_any_broker.database)


def events_of(workers, kind, run_id):
    return [event for each in workers for event in each.events.matching(kind, run_id=run_id)]


async def test_fifty_concurrent_cancels_compensate_a_run_once(engine):
    workers = [await engine.start_worker() for _ in range(2)]
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.send"] = no_reply
    run_id = await client.start()
    [command] = await participant.wait_for_commands("parcel.send")
    asked = await all_at_once(engine, run_id, Cancel("ada", "changed my mind"))
    said = await outcomes_of(engine, workers, asked)
    await participant.publish(*succeed(command))
    await wait_until(lambda: events_of(workers, RunFinished, run_id))
    assert [each.status for each in events_of(workers, RunFinished, run_id)] == [Status.COMPENSATED]
    assert participant.command_names == [
        "parcel.pack",
        "parcel.send",
        "parcel.recall",
        "parcel.unpack",
    ]
    assert set(said) <= {"accepted", "refused"}
    assert "accepted" in said
    [detail] = (await check_promises(engine.database)).values()
    assert [each.type for each in detail.journal].count("run_stopping") == 1


async def test_fifty_concurrent_retries_of_an_incident_send_its_command_once(engine):
    workers = [await engine.start_worker() for _ in range(2)]
    client = await engine.connect_client()
    run_id = await client.start()
    await wait_until(lambda: events_of(workers, IncidentOpened, run_id))
    participant = await engine.start_participant()
    asked = await all_at_once(
        engine,
        run_id,
        ResolveIncident(
            incident_number=1, resolution=Resolution.RETRY, operator="ada", reason="bound"
        ),
    )
    said = await outcomes_of(engine, workers, asked)
    await wait_until(lambda: events_of(workers, RunFinished, run_id))
    assert [each.status for each in events_of(workers, RunFinished, run_id)] == [Status.COMPLETED]
    assert sorted(said) == ["accepted", *["refused"] * (PEOPLE - 1)]
    assert participant.command_names == ["parcel.pack", "parcel.send", "parcel.notify"]
    await check_promises(engine.database)


async def all_at_once(engine, run_id, trigger):
    async with asyncio.TaskGroup() as group:
        asking = [
            group.create_task(record_operator_action(engine, run_id, trigger))
            for _ in range(PEOPLE)
        ]
    return [each.result() for each in asking]


async def outcomes_of(engine, workers, asked):
    """The output of each command, once all have ended."""

    def answered():
        return sum(len(each.events.matching(OperatorActionProcessed)) for each in workers)

    await wait_until(lambda: answered() >= len(asked))
    assert answered() == len(asked)
    return [(await audit_outcome(engine, audit_id))[0] for audit_id in asked]


def reshaped():
    """The same saga in a later version with most of its steps removed."""
    saga = Saga("parcel", version=2, input=dict[str, str | int])

    @saga.step(command="parcel.notify")
    def notify(parcel: dict[str, str | int]) -> dict[str, str | int]:
        return parcel

    @notify.compensation(command="parcel.unnotify")
    def untell(parcel: dict[str, str | int]) -> dict[str, str | int]:
        return parcel

    return saga


async def test_a_run_compensates_by_its_own_definition_after_a_deployment(
    engine_on_any_broker,
):
    first = await engine_on_any_broker.start_worker(parcels(version=1))
    participant, client = (
        await engine_on_any_broker.start_participant(COMMANDS),
        await engine_on_any_broker.connect_client(),
    )
    participant.reply_makers["parcel.send"] = no_reply
    old = await client.start()
    [command] = await participant.wait_for_commands("parcel.send")
    await first.stop()
    second = await engine_on_any_broker.start_worker(reshaped())
    new = await client.start()
    assert await second.events.wait_for_end(new) == Status.COMPLETED
    await participant.publish(*reject(command))
    await second.events.wait_for(MessageHeld, run_id=old)
    assert participant.command_names == ["parcel.pack", "parcel.send", "parcel.notify"]
    third = await engine_on_any_broker.start_worker(parcels(version=1))
    assert await third.events.wait_for_end(old) == Status.COMPENSATED
    assert participant.command_names[3:] == ["parcel.unpack"]
    await check_promises(engine_on_any_broker.database)
