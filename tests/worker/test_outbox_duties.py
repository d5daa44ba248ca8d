"""The outbox: unroutable, unconfirmed and obsolete commands."""

import asyncio

from sqlalchemy import text

from saga_engine.store import (
    outbox,
)
from saga_engine.vocabulary import Status
from tests.kit.broker_faults import nack
from tests.kit.engine import no_reply
from tests.kit.promises import check_promises
from tests.worker.steps import idle_duties


async def test_an_unroutable_command_is_never_sent_again(engine):
    worker, client = (
        await engine.start_worker(outbox_cleanup_interval=600.0),
        await engine.connect_client(),
    )
    run_id = await client.start()
    await worker.events.wait_for_incident(run_id, cause="unroutable")
    async with engine.database.transaction() as tx:
        assert (await outbox.backlog(tx)).pending == 0


async def test_obsolete_commands_do_not_reduce_the_size_of_a_resend(engine):
    """They are deleted, and count as rows of a full batch."""
    worker = await engine.start_worker()
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.pack"] = no_reply
    run_id = await client.start()
    await participant.wait_for_commands("parcel.pack")
    await worker.stop()
    async with engine.database.transaction() as tx:
        await tx.execute(text("DELETE FROM saga_engine.outbox"))
        await tx.execute(OBSOLETE_COMMANDS, {"run_id": run_id})
    duties = await idle_duties(engine)
    duties.outbox._resend_limit.size = 1
    sizes = []
    while await duties.outbox.resend_unconfirmed():
        sizes.append(duties.outbox._resend_limit.size)
    assert sizes == [2, 3, 3]
    async with engine.database.transaction() as tx:
        assert (await outbox.backlog(tx)).pending == 0


OBSOLETE_COMMANDS = text(
    """
    INSERT INTO saga_engine.outbox (run_id, due_at, version, attempt, saga, step, direction,
        command, idempotency_key, payload, created_at)
    SELECT CAST(:run_id AS uuid), now(), 1, attempt, 'parcel', 'pack', 'action', 'parcel.pack',
        'key', '{}', now() - interval '1 hour'
    FROM generate_series(2, 6) AS attempt"""
)


async def test_another_worker_resends_the_commands_of_a_dead_worker(engine, development_broker):
    patient = {"outbox_resend_after": 0.4, "broker_confirm_timeout": 0.2}
    worker, client = await engine.start_worker(**patient), await engine.connect_client()
    participant = await engine.start_participant()
    rule = development_broker.faults.on_publish(
        lambda message: message.routing_key == "parcel.pack", nack, max_count=1
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
