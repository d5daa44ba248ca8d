"""The bytes that one transaction reads are limited; the first row is read in any case."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from saga_engine.decider.decide import decide
from saga_engine.decider.triggers import Start
from saga_engine.errors import StoreReadTooLarge
from saga_engine.store.batch_append import BatchAppend
from saga_engine.store.pending_requests import NewRequest, RequestKind
from tests.kit.stored_runs import (
    INPUT,
    ORDERS,
    add_commands,
    run_append,
    run_id,
)
from tests.kit.stores import RequesterStore

TEXT = {"text": "é" * 5_000}  # 10,000 bytes as text, and far less as PostgreSQL compresses it
MOST = 25_000
FIT = 3  # the third begins below the limit


async def large_runs(store: RequesterStore, definition_id: int, number: int) -> list[str]:
    """Runs with an input of that size, all of them due."""
    async with store.transaction() as tx:
        now = await tx.database_now()
        decisions = [
            decide(ORDERS, None, Start(run_id(), None, {**INPUT, **TEXT}), now)
            for _ in range(number)
        ]
        appends = [
            run_append(each, definition_id=definition_id, recorded_at=now) for each in decisions
        ]
        await tx.append_runs(BatchAppend(runs=appends))
        ids = sorted(each.journal_row.run_id for each in appends)
        for each in ids:
            await tx.defer_wake(each, timedelta(seconds=-1))
    return ids


async def test_runs_beyond_the_byte_limit_are_refused(store: RequesterStore, definition_id: int):
    ids = await large_runs(store, definition_id, 5)
    async with store.transaction() as tx:
        assert await tx.read_runs(ids[:FIT], max_bytes=MOST) == await tx.read_runs(ids[:FIT])
        assert len(await tx.read_runs(ids[:1], max_bytes=1)) == 1
        with pytest.raises(StoreReadTooLarge):
            await tx.read_runs(ids, max_bytes=MOST)


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


async def test_stale_commands_are_claimed_up_to_the_byte_limit(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        ids = [each.id for each in await add_commands(tx, definition_id, 5, TEXT)]
    old = timedelta(0)
    async with store.transaction() as tx:
        first = (await tx.claim_stale_commands(old, 10, max_bytes=MOST)).claimed
        assert [each.id for each in first] == ids[:FIT]
