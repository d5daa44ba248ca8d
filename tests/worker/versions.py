"""Several versions of a saga, and runs of them that are queued."""

from pydantic import BaseModel

from saga_engine.identifiers import uuid7
from saga_engine.saga.definition import Saga
from saga_engine.store import definitions
from tests.kit.engine import no_reply


class StrictInput(BaseModel):
    n: int
    address: str


def second_version():
    """Version 2, whose input has another field."""
    saga = Saga("parcel", version=2, input=StrictInput)

    @saga.step(command="parcel.pack", reply=dict[str, str])
    def pack(parcel: StrictInput) -> dict[str, str]:
        return {"address": parcel.address}

    @pack.compensation(command="parcel.unpack")
    def unpack(parcel: StrictInput) -> dict[str, str]:
        return {"address": parcel.address}

    return saga


def start(run_id, **more):
    return ("start", {"run_id": run_id, "saga": "parcel", "input": {"n": 2}, **more})


async def queue_one_start(engine, **more):
    """A worker whose only slot is in use, and a start that is accepted and queued."""
    worker = await engine.start_worker(max_concurrent_runs=1)
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.pack"] = no_reply
    await client.start(input={"n": 1})
    [command] = await participant.wait_for_commands("parcel.pack")
    queued_run_id = str(uuid7())
    [answer] = await client.call_all(start(queued_run_id, **more))
    assert (answer.outcome, answer.run.version) == ("accepted", 1)
    return worker, participant, client, command, queued_run_id


async def register_definitions(engine, *sagas):
    async with engine.database.transaction() as tx:
        return await definitions.register(tx, sagas)
