"""The checker of the fault suite compares what workers hold in memory with the journals."""

from dataclasses import replace

import pytest

from saga_engine.store import run_queries
from saga_engine.store.runs import StoredRun
from saga_engine.worker.run_cache import RunCache
from saga_engine.worker.transaction_runner import TransactionRunner
from tests.faults.held_runs import HeldRunReader, digest_of, record_held_runs
from tests.kit.engine import engine_harness, no_reply, succeed
from tests.kit.parcels import parcels
from tests.kit.stored_runs import decide_start, stored_run
from tests.worker.steps import NOW


@pytest.fixture
async def engine(development_broker, migrated_url, tmp_path, monkeypatch):
    """An engine whose workers record the runs that they hold; they run in this process."""
    monkeypatch.setattr(TransactionRunner, "_remember", TransactionRunner._remember)
    record_held_runs(str(tmp_path / "worker-0"))
    async with engine_harness(development_broker.url, migrated_url) as engine:
        yield engine


async def problems_of(engine, directory, *run_ids):
    """Read what the workers have recorded; what is wrong with it."""
    reader, found = HeldRunReader(directory), []
    reader.read()
    async with engine.database.transaction() as tx:
        for run_id in run_ids:
            detail = await run_queries.read_detail(tx, run_id)
            assert detail is not None
            revisions = range(1, detail.stored_run.revision + 1)
            found += reader.problems(run_id, detail.journal, revisions)
    return found


async def start_a_run_that_waits(engine):
    """Start a worker and a run; return the worker, the client and the run's id."""
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.send"] = no_reply
    worker = await engine.start_worker(parcels())
    run_id = await client.start()
    await participant.wait_for_commands("parcel.send")
    participant.reply_makers["parcel.send"] = succeed
    return worker, client, run_id


async def test_what_workers_hold_is_what_the_journals_say(engine, tmp_path):
    worker, client, waiting = await start_a_run_that_waits(engine)
    await worker.events.wait_for_end(completed := await client.start())
    assert await problems_of(engine, tmp_path, waiting, completed) == []


async def test_a_worker_that_remembers_the_run_before_its_last_decision_is_found(
    engine, tmp_path, monkeypatch
):
    keep, before = RunCache.keep, dict[str, StoredRun]()

    def keep_the_run_before(self: RunCache, stored: StoredRun, epoch: int | None) -> None:
        known = before.setdefault(stored.run.run_id, stored)
        keep(self, replace(known, revision=stored.revision), epoch)

    monkeypatch.setattr(RunCache, "keep", keep_the_run_before)
    _, _, waiting = await start_a_run_that_waits(engine)
    [problem] = await problems_of(engine, tmp_path, waiting)
    assert problem.startswith("P5: worker-0-")
    assert "held revision 2 of" in problem


def test_a_line_that_is_not_complete_is_not_read(tmp_path):
    run = decide_start(NOW).run
    assert run is not None
    held = stored_run(run, 1)
    line = f"{run.run_id} {held.revision} {digest_of(run)}\n"
    file, reader = tmp_path / "worker-0", HeldRunReader(tmp_path)
    file.write_text(line[:-1])
    reader.read()
    assert reader.problems(run.run_id, [], []) == [
        f"P5: no worker has recorded that it held {run.run_id}"
    ]
    file.write_text(line)
    reader.read()
    [problem] = reader.problems(run.run_id, [], [])
    assert "held revision 1 of" in problem
