"""The bytes that one transaction reads are limited; the first row is read in any case."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from saga_engine.decider.decide import decide
from saga_engine.decider.triggers import Start
from saga_engine.errors import StoreReadTooLarge
from saga_engine.store import due_runs, outbox, pending_requests, request_queue, runs
from saga_engine.store.database import Database
from saga_engine.store.pending_requests import NewRequest
from tests.kit.stored_runs import INPUT, ORDERS, decide_start, run_id, sends, stored_run

TEXT = {"text": "é" * 5_000}  # 10,000 bytes as text, and far less as PostgreSQL compresses it
MOST = 25_000
FIT = 3  # the third begins below the limit


async def large_runs(database: Database, definition_id: int, number: int) -> list[str]:
    """Runs with an input of that size, all of them due."""
    async with database.transaction() as tx:
        now = await runs.database_now(tx)
        made = [
            decide(ORDERS, None, Start(run_id(), None, {**INPUT, **TEXT}), now).run
            for _ in range(number)
        ]
        await runs.insert(tx, [stored_run(run, definition_id) for run in made if run])
        ids = sorted(run.run_id for run in made if run)
        for each in ids:
            await due_runs.defer_wake(tx, each, timedelta(seconds=-1))
    return ids


@pytest.mark.parametrize("read", [runs.lock, runs.lock_skip_locked, runs.read_unlocked])
async def test_runs_beyond_the_byte_limit_are_refused(database: Database, definition_id: int, read):
    ids = await large_runs(database, definition_id, 5)
    async with database.transaction() as tx:
        assert await read(tx, ids[:FIT], max_bytes=MOST) == await read(tx, ids[:FIT])
        assert len(await read(tx, ids[:1], max_bytes=1)) == 1
        with pytest.raises(StoreReadTooLarge):
            await read(tx, ids, max_bytes=MOST)


async def test_due_runs_are_taken_up_to_the_byte_limit_and_the_rest_stay_due(
    database: Database, definition_id: int
):
    ids = await large_runs(database, definition_id, 5)
    async with database.transaction() as tx:
        found = await due_runs.lock_due(tx, [definition_id], 10, max_bytes=MOST)
        assert len(found) == FIT
        assert await due_runs.lock_due(tx, [definition_id], 10, max_bytes=1) == {
            next(iter(found)): next(iter(found.values()))
        }
        assert set(await due_runs.due_run_ids(tx, [definition_id], 10)) == set(ids)


async def test_pending_requests_are_taken_up_to_the_byte_limit(
    database: Database, definition_id: int
):
    ours: dict[str, Any] = {"definition_ids": [definition_id], "limit": 10, "max_bytes": MOST}
    starts = [
        NewRequest(kind="start", run_id=run_id(), body=TEXT, saga=ORDERS.name) for _ in range(5)
    ]
    others = [
        NewRequest(kind="cancel", run_id=run_id(), body=TEXT, definition_id=definition_id)
        for _ in range(5)
    ]
    async with database.transaction() as tx:
        await pending_requests.record(tx, [*starts, *others])
        for items, take in ((others, request_queue.take), (starts, _take_starts)):
            taken = [[item.run_id for item in await take(tx, **ours)] for _ in range(3)]
            assert taken == [
                [item.run_id for item in items[:FIT]],
                [item.run_id for item in items[FIT:]],
                [],
            ]


async def _take_starts(tx, **ours):
    return await request_queue.take_starts(tx, {ORDERS.name: 10}, **ours)


async def test_stale_commands_are_claimed_up_to_the_byte_limit(database: Database):
    async with database.transaction() as tx:
        send = replace(sends(decide_start(await runs.database_now(tx)))[0], payload=TEXT)
        ids = await outbox.add(tx, [replace(send, attempt=number) for number in range(1, 6)])
    old = timedelta(0)
    async with database.transaction() as tx:
        first = (await outbox.claim_stale(tx, old, 10, max_bytes=MOST)).claimed
        assert [each.id for each in first] == ids[:FIT]
