"""The bytes that one transaction reads are limited; the first row is read in any case."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from saga_engine.decider.decide import decide
from saga_engine.decider.triggers import Start
from saga_engine.errors import StoreReadTooLarge
from saga_engine.store.pending_requests import NewRequest, RequestKind
from tests.kit.stored_runs import INPUT, ORDERS, decide_start, run_id, sends, stored_run
from tests.kit.stores import RequesterStore

TEXT = {"text": "é" * 5_000}  # 10,000 bytes as text, and far less as PostgreSQL compresses it
MOST = 25_000
FIT = 3  # the third begins below the limit


async def large_runs(store: RequesterStore, definition_id: int, number: int) -> list[str]:
    """Runs with an input of that size, all of them due."""
    async with store.transaction() as tx:
        now = await tx.database_now()
        made = [
            decide(ORDERS, None, Start(run_id(), None, {**INPUT, **TEXT}), now).run
            for _ in range(number)
        ]
        await tx.insert_runs([stored_run(run, definition_id) for run in made if run])
        ids = sorted(run.run_id for run in made if run)
        for each in ids:
            await tx.defer_wake(each, timedelta(seconds=-1))
    return ids


READS: dict[str, Callable[..., Any]] = {
    "wait for locks": lambda tx, ids, **limits: tx.lock_runs(ids, **limits),
    "skip what is locked": lambda tx, ids, **limits: tx.lock_free_runs(ids, **limits),
    "without locks": lambda tx, ids, **limits: tx.read_runs(ids, **limits),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
async def test_runs_beyond_the_byte_limit_are_refused(
    store: RequesterStore, definition_id: int, read
):
    ids = await large_runs(store, definition_id, 5)
    async with store.transaction() as tx:
        assert await read(tx, ids[:FIT], max_bytes=MOST) == await read(tx, ids[:FIT])
        assert len(await read(tx, ids[:1], max_bytes=1)) == 1
        with pytest.raises(StoreReadTooLarge):
            await read(tx, ids, max_bytes=MOST)


async def test_due_runs_are_taken_up_to_the_byte_limit_and_the_rest_stay_due(
    store: RequesterStore, definition_id: int
):
    ids = await large_runs(store, definition_id, 5)
    async with store.transaction() as tx:
        found = await tx.lock_due_runs([definition_id], 10, max_bytes=MOST)
        assert len(found) == FIT
        assert await tx.lock_due_runs([definition_id], 10, max_bytes=1) == {
            next(iter(found)): next(iter(found.values()))
        }
        assert set(await tx.due_run_ids([definition_id], 10)) == set(ids)


async def test_pending_requests_are_taken_up_to_the_byte_limit(
    store: RequesterStore, definition_id: int
):
    ours: dict[str, Any] = {"definition_ids": [definition_id], "limit": 10, "max_bytes": MOST}
    starts = [
        NewRequest(kind=RequestKind.START, run_id=run_id(), body=TEXT, saga=ORDERS.name)
        for _ in range(5)
    ]
    others = [
        NewRequest(kind=RequestKind.CANCEL, run_id=run_id(), body=TEXT, definition_id=definition_id)
        for _ in range(5)
    ]
    async with store.transaction() as tx:
        await tx.record_requests([*starts, *others])
        takes: list[tuple[list[NewRequest], Callable[..., Any]]] = [
            (others, tx.take_requests),
            (starts, partial(tx.take_starts, {ORDERS.name: 10})),
        ]
        for items, take in takes:
            taken = [[item.run_id for item in await take(**ours)] for _ in range(3)]
            assert taken == [
                [item.run_id for item in items[:FIT]],
                [item.run_id for item in items[FIT:]],
                [],
            ]


async def test_stale_commands_are_claimed_up_to_the_byte_limit(store: RequesterStore):
    async with store.transaction() as tx:
        send = replace(sends(decide_start(await tx.database_now()))[0], payload=TEXT)
        ids = await tx.add_commands([replace(send, attempt=number) for number in range(1, 6)])
    old = timedelta(0)
    async with store.transaction() as tx:
        first = (await tx.claim_stale_commands(old, 10, max_bytes=MOST)).claimed
        assert [each.id for each in first] == ids[:FIT]
