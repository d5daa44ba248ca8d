"""A due timer that loses a race: it is decided again, unless it was moved meanwhile."""

from functools import partial

import pytest
from sqlalchemy import text

from saga_engine.store import journal, recovery
from tests.kit.engine import no_reply
from tests.worker.recorded_statements import RecordingDatabase
from tests.worker.steps import idle_duties

OVERDUE = text(
    """
    WITH waiting AS (
        UPDATE saga_engine.run SET wake_at = clock_timestamp() - interval '1 hour'
        WHERE run_id = CAST(:run_id AS uuid))
    UPDATE saga_engine.journal SET events = jsonb_set(jsonb_set(events,
        '{1,data,sent_at}', '"2020-01-01T00:00:00+00:00"'),
        '{1,data,due_at}', '"2020-01-01T00:00:30+00:00"')
    WHERE run_id = CAST(:run_id AS uuid)"""
)

OTHER_DECISION = text(
    """
    INSERT INTO saga_engine.journal (run_id, revision, recorded_at, position, events)
    SELECT run_id, 2, clock_timestamp(), saga_engine.draw_positions(1), '[]'
    FROM saga_engine.journal WHERE run_id = CAST(:run_id AS uuid) AND revision = 1"""
)


async def overdue_run(engine):
    """The id of a run whose command was sent and is overdue; its worker has ended."""
    worker = await engine.start_worker()
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.pack"] = no_reply
    run_id = await client.start()
    await participant.wait_for_commands("parcel.pack")
    await worker.stop()
    engine.forget_held_runs()  # its journal is changed by hand
    async with engine.database.transaction() as tx:
        await tx.execute(OVERDUE, {"run_id": run_id})
    return run_id


async def decide_something_else(engine, run_id):
    async with engine.database.transaction() as tx:
        await tx.execute(OTHER_DECISION, {"run_id": run_id})


async def recover(engine, _run_id):
    assert (await recovery.resend_in_flight(engine.database)).runs == 1


@pytest.mark.parametrize(
    ("other", "attempts_failed"),
    [(decide_something_else, 1), (recover, 0)],
    ids=["decided", "moved"],
)
async def test_a_timer_that_loses_a_race_is_decided_again_unless_it_was_moved(
    engine, other, attempts_failed
):
    """`recover` gives the attempt its whole timeout again, while a worker decides its timeout."""
    run_id = await overdue_run(engine)
    database = RecordingDatabase(engine.database, [partial(other, engine, run_id)])
    duties = await idle_duties(engine, database)
    assert await duties.due_runs.process()
    async with engine.database.transaction() as tx:
        events = [each.type for each in await journal.read(tx, run_id)]
    assert events.count("attempt_failed") == attempts_failed
