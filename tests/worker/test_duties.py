"""What a worker's periodic duties owe to everybody else who works on the same rows."""

import asyncio

from sqlalchemy import text

from saga_engine.saga.trigger import Cancel, trigger_data
from saga_engine.saga.vocabulary import Status
from saga_engine.store import inbox, outbox
from saga_engine.store.inbox import Item
from tests.worker.engine import keep_silent, reject

LOCK = text("SELECT FROM saga_engine.run WHERE run_id = CAST(:run_id AS uuid) FOR UPDATE")
LOCK_NOW = text(LOCK.text + " NOWAIT")
DUE = text(
    "UPDATE saga_engine.run SET wake_at = clock_timestamp() WHERE run_id = CAST(:run_id AS uuid)"
)
PUT_BY = text("SELECT count(*) FROM saga_engine.inbox WHERE not_before IS NOT NULL")


async def test_a_request_for_a_run_that_is_held_waits_without_holding_another(engine):
    worker, shop, asker = await engine.worker(), await engine.shop(), await engine.asker()
    shop.answers["parcel.pack"] = keep_silent
    first, second = sorted([await asker.start(), await asker.start()])
    await shop.until("parcel.pack", 2)
    kind, body = trigger_data(Cancel("ada", "because"))
    async with engine.database.transaction() as other:
        await other.execute(LOCK, {"run_id": first})
        async with engine.database.transaction() as tx:
            await tx.execute(DUE, {"run_id": second})
            await inbox.record(tx, [Item(kind, first, body)])
        await eventually_one_is_put_by(engine)
        await other.execute(LOCK_NOW, {"run_id": second})
    [command] = [each for each in shop.received if str(each.command.run_id) == first]
    await shop.publish(*reject(command))
    assert await worker.facts.finished(first) == Status.COMPENSATED


async def test_a_command_that_the_run_takes_for_undelivered_is_never_sent_again(engine):
    worker, asker = await engine.worker(outbox_flush=600.0), await engine.asker()
    run_id = await asker.start()
    await worker.facts.incident(run_id, cause="unroutable")
    async with engine.database.transaction() as tx:
        assert (await outbox.backlog(tx)).pending == 0


async def eventually_one_is_put_by(engine):
    async with asyncio.timeout(60):
        waits = 0
        while not waits:
            async with engine.database.transaction() as tx:
                waits = (await tx.execute(PUT_BY)).scalar_one()
