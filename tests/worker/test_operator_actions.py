"""What operators do about incidents, and which actions are refused."""

import asyncio

from saga_engine.decider.triggers import Cancel, ResolveIncident
from saga_engine.identifiers import uuid7
from saga_engine.telemetry.events import (
    IncidentResolved,
    OperatorActionProcessed,
)
from saga_engine.vocabulary import Resolution, Status
from tests.kit.parcels import COMMANDS
from tests.kit.promises import check_promises
from tests.worker.steps import audit_outcome, record_operator_action


async def test_an_unroutable_command_opens_an_incident_that_can_be_retried(
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
    audit_id = await record_operator_action(
        engine_on_any_broker,
        run_id,
        ResolveIncident(
            incident_number=1, resolution=Resolution.RETRY, operator="ada", reason="bound"
        ),
    )
    assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    assert (await audit_outcome(engine_on_any_broker, audit_id))[0] == "accepted"
    [detail] = (await check_promises(engine_on_any_broker.database)).values()
    returned = [each for each in detail.journal if each.data.get("never_delivered")]
    assert len(returned) == 2


async def test_an_operator_skips_completes_and_abandons(engine):
    worker, client = await engine.start_worker(), await engine.connect_client()
    await engine.start_participant(COMMANDS[2:])  # no queue for parcel.pack
    asked = {
        Resolution.SKIP: Status.COMPLETED,
        Resolution.COMPLETE: Status.COMPLETED,
        Resolution.ABANDON: Status.ABANDONED,
    }
    for resolution, status in asked.items():
        run_id = await client.start()
        await worker.events.wait_for_incident(run_id)
        result = {"did": "by hand"} if resolution is Resolution.COMPLETE else None
        audit_id = await record_operator_action(
            engine,
            run_id,
            ResolveIncident(
                incident_number=1,
                resolution=resolution,
                operator="ada",
                reason="so be it",
                result=result,
            ),
        )
        assert await worker.events.wait_for_end(run_id) == status
        await worker.events.wait_for(IncidentResolved, run_id=run_id, resolution=resolution)
        assert (await audit_outcome(engine, audit_id))[0] == "accepted"
    await check_promises(engine.database)


async def test_an_impossible_operator_action_is_refused_with_a_reason(engine):
    worker, participant, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    run_id = await client.start()
    await worker.events.wait_for_end(run_id)
    for trigger in (
        ResolveIncident(incident_number=1, resolution=Resolution.RETRY, operator="ada", reason="x"),
        Cancel("ada", "too late"),
    ):
        audit_id = await record_operator_action(engine, run_id, trigger)
        await worker.events.wait_for(OperatorActionProcessed, accepted=False, run_id=run_id)
        async with asyncio.timeout(20):
            while (await audit_outcome(engine, audit_id))[0] is None:
                await client.call("status", run_id=run_id)
        assert (await audit_outcome(engine, audit_id))[0] == "refused"
    audit_id = await record_operator_action(engine, str(uuid7()), Cancel("ada", "no such run"))
    await worker.events.wait_for(OperatorActionProcessed, 3, accepted=False)
    assert "no such run" in (await audit_outcome(engine, audit_id))[1]
    assert len(participant.received) == 3
