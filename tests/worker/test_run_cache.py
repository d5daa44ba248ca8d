"""The cache saves reading a run; the fence finds out when it is older than the journal."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from saga_engine.decider.decide import decide
from saga_engine.store.runs import StoredRun
from saga_engine.telemetry.events import RunFinished
from saga_engine.vocabulary import Status
from saga_engine.worker.run_cache import MEMORY_FACTOR, RUN_OVERHEAD_BYTES, RunCache
from tests.kit.connections import wait_until
from tests.kit.engine import no_reply, succeed
from tests.kit.parcels import parcels
from tests.kit.promises import check_promises
from tests.kit.stored_runs import ORDERS, RESERVED, decide_start, stored_run

NOW = datetime(2026, 11, 15, tzinfo=UTC)
EPOCH = 1
ONE_RUN = RUN_OVERHEAD_BYTES + MEMORY_FACTOR * 100


def cached(size: int = 100) -> StoredRun:
    run = decide_start(NOW).run
    assert run is not None
    return replace(stored_run(run, 1), size=size)


def cache_of(max_bytes: int) -> RunCache:
    cache = RunCache(max_bytes)
    cache.enter(EPOCH)
    return cache


def ids_in(cache: RunCache, *runs: StoredRun) -> list[int]:
    """Which of the runs are in the cache, by their numbers."""
    return [number for number, each in enumerate(runs) if cache.find([each.run.run_id])]


def test_the_run_that_was_not_used_for_the_longest_time_is_forgotten_first():
    cache, runs = cache_of(2 * ONE_RUN), [cached() for _ in range(3)]
    cache.keep(runs[0], EPOCH)
    cache.keep(runs[1], EPOCH)
    cache.find([runs[0].run.run_id])
    cache.keep(runs[2], EPOCH)
    assert ids_in(cache, *runs) == [0, 2]


def test_a_cache_is_bounded_by_bytes():
    cache = cache_of(10 * ONE_RUN)
    small, more = [cached() for _ in range(5)], [cached() for _ in range(10)]
    large = cached(size=10 * ONE_RUN)
    for each in small:
        cache.keep(each, EPOCH)
    cache.keep(large, EPOCH)
    assert ids_in(cache, *small) == [*range(5)], "one run alone exceeds the bound"
    assert len(cache) == 5
    for each in more:
        cache.keep(each, EPOCH)
    assert (ids_in(cache, *small), ids_in(cache, *more)) == ([], [*range(10)])


def test_a_run_is_replaced_by_its_next_revision():
    cache, run = cache_of(ONE_RUN), cached()
    decision = decide(ORDERS, run.run, RESERVED, NOW)
    assert decision.run is not None
    later = replace(run, run=decision.run, revision=2)
    cache.keep(run, EPOCH)
    cache.keep(later, EPOCH)
    assert cache.find([run.run.run_id]) == {run.run.run_id: later}
    cache.keep(replace(later, run=replace(later.run, status=Status.COMPLETED)), EPOCH)
    assert len(cache) == 0, "a finished run needs no place"


def test_nothing_is_remembered_when_the_server_may_be_another_one():
    cache, run = cache_of(ONE_RUN), cached()
    cache.enter(3)
    cache.keep(run, 3)
    cache.enter(3)
    assert ids_in(cache, run) == [0]
    cache.enter(4)  # a connection was opened
    assert ids_in(cache, run) == []
    cache.keep(run, 3)  # of a batch on an older connection
    assert ids_in(cache, run) == []
    cache.enter(None)  # a pooler
    cache.keep(run, None)
    assert ids_in(cache, run) == []


def test_without_bytes_nothing_is_kept():
    cache, run = cache_of(0), cached()
    cache.keep(run, EPOCH)
    assert not cache.find([run.run.run_id])
    cache.clear()
    cache.discard([run.run.run_id])


async def test_a_reply_to_a_worker_that_remembers_an_older_run_is_decided_on_the_newest(engine):
    """Each worker has the run in its cache, and the replies come to both of them in turn."""
    participant, client = await engine.start_participant(), await engine.connect_client()
    for command in ("parcel.pack", "parcel.send", "parcel.notify"):
        participant.reply_makers[command] = no_reply
    first, second = await engine.start_worker(parcels()), await engine.start_worker(parcels())
    run_ids = [await client.start() for _ in range(8)]
    for command in ("parcel.pack", "parcel.send", "parcel.notify"):
        for each in await participant.wait_for_commands(command, len(run_ids)):
            await participant.publish(*succeed(each), *succeed(each))
    await wait_until(
        lambda: sum(len(each.events.matching(RunFinished)) for each in (first, second)) == 8
    )
    details = await check_promises(engine.database)
    assert {each.stored_run.run.status for each in details.values()} == {Status.COMPLETED}


async def test_a_worker_that_holds_a_run_otherwise_than_its_journal_says_is_found(engine):
    participant, client = await engine.start_participant(), await engine.connect_client()
    for command in ("parcel.pack", "parcel.send"):
        participant.reply_makers[command] = no_reply
    await engine.start_worker(parcels())
    await client.start()
    [packing] = await participant.wait_for_commands("parcel.pack")
    [before] = engine.held_runs()
    await participant.publish(*succeed(packing))
    await participant.wait_for_commands("parcel.send")
    [held] = engine.held_runs()
    assert (before.revision, held.revision) == (1, 2)
    await check_promises(engine.database, settled=False, held=[before, held])
    with pytest.raises(AssertionError, match="P5: a worker holds, at 2"):
        await check_promises(
            engine.database, settled=False, held=[replace(before, revision=held.revision)]
        )
    with pytest.raises(AssertionError, match="P5: a worker holds revision 3"):
        await check_promises(engine.database, settled=False, held=[replace(held, revision=3)])
