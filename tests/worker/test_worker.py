"""A worker's shutdown."""

import asyncio

from saga_engine.telemetry.events import MessagesConsumed, ProcessStopped
from tests.kit.engine import no_reply, succeed
from tests.worker.steps import HOLD_BATCHES

DRAIN = 3.0


async def test_the_shutdown_timeout_includes_closing_the_connections(engine):
    worker, participant, client = (
        await engine.start_worker(shutdown_timeout=DRAIN),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    participant.reply_makers["parcel.pack"] = no_reply
    await client.start()
    [command] = await participant.wait_for_commands("parcel.pack")
    async with engine.database.transaction() as tx:
        await tx.execute(HOLD_BATCHES)
        before = len(worker.events.matching(MessagesConsumed, queue="saga.replies"))
        await participant.publish(*succeed(command))
        await worker.events.wait_for(MessagesConsumed, before + 1, queue="saga.replies")
        async with asyncio.timeout(DRAIN * 0.9):
            await worker.stop()
    [stopped] = worker.events.matching(ProcessStopped)
    assert not stopped.clean
