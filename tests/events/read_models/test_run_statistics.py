"""The read model of runs by saga and status counts what the runs themselves say."""

from collections import Counter
from random import Random

from saga_engine.decider.events import RunAbandoned, RunCompensating
from saga_engine.events.event_store import positions
from saga_engine.events.read_models.run_statistics import RUN_STATISTICS
from saga_engine.postgres.statement import text
from saga_engine.vocabulary import Status
from tests.kit.read_blocks import BLOCKS
from tests.kit.read_models import (
    SAGA,
    append_random,
    events_of,
    is_equal_in_any_windows,
    last_position,
)
from tests.kit.run_histories import append_histories, random_history

ROWS = text("SELECT count(*) FROM saga_engine.journal WHERE position > :after")


async def test_each_run_is_counted_in_its_status(database, definition_id):
    histories = await append_random(database, Random(0), definition_id, 300)
    statuses = Counter(each.status for each in histories)
    assert set(statuses) == set(Status)  # the runs are of every kind
    assert any(len(events_of(each, RunCompensating)) == 2 for each in histories)
    assert any(
        events_of(each, RunCompensating) and events_of(each, RunAbandoned) for each in histories
    )
    found = await is_equal_in_any_windows(database, RUN_STATISTICS)
    counted = {status: runs for saga, status, runs in found if runs and saga == SAGA}
    assert counted == {status.value: number for status, number in statuses.items()}


async def test_a_status_that_all_runs_have_left_has_a_row_in_any_batches(database, definition_id):
    rng = Random(0)
    finished = [each for each in (random_history(rng, SAGA) for _ in range(100)) if is_done(each)]
    async with database.transaction() as tx:
        await append_histories(tx, rng, finished[:2], definition_id)
    found = await is_equal_in_any_windows(database, RUN_STATISTICS)
    assert found == [(SAGA, "completed", 2), (SAGA, "running", 0)]


async def test_a_row_costs_the_same_however_many_runs_there_are(database, definition_id):
    """What looks back in the journal of a run reads no row of other runs."""
    costs = []
    for number in (100, 900):
        after = await last_position(database)
        await append_random(database, Random(number), definition_id, number)
        async with database.transaction() as tx:
            parameters = {"after": after, "until": await positions.horizon(tx)}
            rows = (await tx.execute(ROWS, {"after": after})).scalar_one()
            before = (await tx.execute(BLOCKS)).scalar_one()
            await tx.execute(RUN_STATISTICS.statement, parameters)
            costs.append(((await tx.execute(BLOCKS)).scalar_one() - before) / rows)
    assert costs[1] < 1.5 * costs[0]


def is_done(history):
    return history.status is Status.COMPLETED
