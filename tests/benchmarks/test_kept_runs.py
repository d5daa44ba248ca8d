"""Copied runs are as real ones: whole, each with an id of its own, older than new ones."""

from uuid import UUID

import pytest

from benchmarks.runs.kept_runs import RunCopier
from benchmarks.servers import connect
from tests.kit.stored_runs import CHARGED, RESERVED, apply_trigger, insert_run

TEMPLATES, COPIES = 3, 4
ROWS_OF_A_RUN = 3


@pytest.fixture
async def copied(sql_store, definition_id, migrated_url):
    """A connection to a database with copies of three finished runs, and one unfinished run."""
    async with sql_store.transaction() as tx:
        for _ in range(TEMPLATES):
            run = await insert_run(tx, definition_id)
            for reply in (RESERVED, CHARGED):
                await apply_trigger(tx, run.run_id, reply)
        await insert_run(tx, definition_id)
    connection = await connect(migrated_url)
    copier = await RunCopier.open(connection, TEMPLATES * (1 + 2 * COPIES))
    for _ in range(2):
        await copier.copy(TEMPLATES * COPIES)
    await copier.tidy()
    assert copier.runs == TEMPLATES * (1 + 2 * COPIES)
    yield connection
    await connection.close()


async def test_each_copy_is_finished_and_has_its_journal(copied):
    journals = await copied.fetch(
        "SELECT run_id, array_agg(journal.revision ORDER BY journal.revision) AS revisions"
        " FROM saga_engine.run JOIN saga_engine.journal USING (run_id)"
        " WHERE finished_at IS NOT NULL GROUP BY run_id"
    )
    assert len(journals) == TEMPLATES * (1 + 2 * COPIES)
    assert {tuple(each["revisions"]) for each in journals} == {(1, 2, 3)}


async def test_the_ids_are_valid_and_of_the_time_of_the_run(copied):
    ids = await copied.fetch("SELECT run_id, started_at FROM saga_engine.run")
    assert {UUID(str(each["run_id"])).version for each in ids} == {7}
    assert len({str(each["run_id"])[:13] for each in ids}) == 1  # stored_runs has one time


async def test_the_positions_are_below_those_of_real_runs_and_none_is_used_twice(copied):
    positions = [
        each["position"] for each in await copied.fetch("SELECT position FROM saga_engine.journal")
    ]
    copies = [each for each in positions if each <= 0]
    assert len(copies) == TEMPLATES * 2 * COPIES * ROWS_OF_A_RUN
    assert len(set(positions)) == len(positions)
