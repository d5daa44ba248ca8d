"""How a worker begins and ends."""

import asyncio

from sqlalchemy import text

from saga_engine.telemetry.events import MessagesConsumed, ProcessStopped
from tests.kit.engine import no_reply, succeed

DRAIN = 3.0


async def test_the_time_to_drain_includes_the_time_to_leave(engine):
    worker, shop, asker = (
        await engine.worker(drain=DRAIN),
        await engine.shop(),
        await engine.asker(),
    )
    shop.answers["parcel.pack"] = no_reply
    await asker.start()
    [command] = await shop.until("parcel.pack")
    async with engine.database.transaction() as tx:
        await tx.execute(text("SELECT run_id FROM saga_engine.run FOR UPDATE"))
        before = len(worker.facts.of(MessagesConsumed, queue="saga.replies"))
        await shop.publish(*succeed(command))
        await worker.facts.until(MessagesConsumed, before + 1, queue="saga.replies")
        async with asyncio.timeout(DRAIN * 0.9):
            await worker.stop()
    [stopped] = worker.facts.of(ProcessStopped)
    assert not stopped.clean
