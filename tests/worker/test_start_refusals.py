"""Refused starts: invalid run ids and unknown sagas."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy import text

from saga_engine.identifiers import uuid7
from saga_engine.vocabulary import Status
from tests.kit.stored_runs import run_id
from tests.worker.steps import check_a_run_completes


async def test_a_start_of_an_unknown_saga_is_answered_and_dead_lettered(engine):
    worker, participant, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    run_id = str(uuid7())
    answer = await client.call("start", run_id=run_id, saga="nothing", input={})
    assert (answer.outcome, "nothing" in answer.refusal.message) == ("unknown_saga", True)
    await worker.events.wait_for_dead_letter("unknown_saga", run_id=run_id)
    await check_a_run_completes(engine, worker, participant, client)


def days_old(days):
    """A run id with the time of so many days ago."""
    ago = int(timedelta(days=days).total_seconds() * 1000)
    return str(UUID(int=uuid7().int - (ago << 80)))


async def test_a_start_with_an_invalid_run_id_is_refused_with_the_fix(engine):
    worker, _, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    for wrong in (str(uuid4()), days_old(40)):
        answer = await client.call("start", run_id=wrong, saga="parcel", key=wrong, input={})
        assert (answer.outcome, answer.refusal.code) == ("invalid", "invalid")
        assert "version 7" in answer.refusal.message
        await worker.events.wait_for_dead_letter("invalid_run_id", run_id=wrong)
        good = await client.start(key=wrong)
        assert await worker.events.wait_for_end(good) == Status.COMPLETED
    async with engine.database.transaction() as tx:
        strays = text("SELECT count(*) FROM saga_engine.run_default")
        assert (await tx.execute(strays)).scalar_one() == 0


async def test_an_existing_run_is_found_although_its_id_is_too_old(engine):
    worker = await engine.start_worker(max_run_id_age_days=28)
    client, _ = await engine.connect_client(), await engine.start_participant()
    old = days_old(20)
    await client.start(run_id=old)
    await worker.events.wait_for_end(old)
    await worker.stop()
    await engine.start_worker()
    again = await client.call("start", run_id=old, saga="parcel", input={})
    assert (again.outcome, again.run.status) == ("existing", "completed")


async def test_the_database_judges_run_ids_the_same(engine):
    ids = {str(uuid7()): True, str(uuid4()): False, run_id(datetime(2020, 1, 1, tzinfo=UTC)): False}
    async with engine.database.transaction() as tx:
        ask = text("SELECT saga_engine.is_valid_run_id(CAST(:id AS uuid))")
        assert {each: (await tx.execute(ask, {"id": each})).scalar_one() for each in ids} == ids
