"""The fates of a work item."""

from saga_engine.identifiers import uuid7
from saga_engine.telemetry.events import (
    MessageHeld,
)
from saga_engine.vocabulary import Status
from tests.kit.engine import no_reply, succeed
from tests.kit.parcels import failing_parcels, parcels
from tests.kit.promises import check_promises


async def test_a_reply_for_a_definition_that_is_not_loaded_waits_for_a_worker_with_it(engine):
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


async def test_a_start_of_a_saga_that_is_not_loaded_waits_for_a_worker_with_it(engine):
    first = await engine.start_worker(failing_parcels(lambda _: None))
    await first.stop()
    second, client = await engine.start_worker(), await engine.connect_client()
    await engine.start_participant()
    run_id = str(uuid7())
    await client.send(("start", {"run_id": run_id, "saga": "fragile", "input": {}}))
    await second.events.wait_for(MessageHeld, run_id=run_id)
    third = await engine.start_worker(failing_parcels(lambda _: None))
    assert await third.events.wait_for_end(run_id) == Status.COMPLETED
