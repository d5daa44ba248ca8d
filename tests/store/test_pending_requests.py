import asyncio
import json
from datetime import timedelta
from uuid import uuid4

from saga_engine.store import pending_requests, request_queue
from saga_engine.store.database import Database, SqlAlchemyTransaction
from saga_engine.store.pending_requests import NewRequest
from tests.kit.stored_runs import BOTH_DATABASES, ORDERS, insert_run, run_id

pytestmark = BOTH_DATABASES


async def take(tx: SqlAlchemyTransaction, *, sagas=(), definition_ids=(), limit=100) -> list[str]:
    """Take out starts of *sagas*, whoever's turn it is, and then everything else."""
    ours = {"definition_ids": definition_ids, "limit": limit}
    found = await request_queue.take_starts(tx, dict.fromkeys(sagas, limit), **ours)
    found += await request_queue.take(tx, **ours)
    return [item.run_id for item in found]


async def test_an_item_comes_out_once_as_it_went_in(database: Database):
    item = NewRequest(
        kind="start",
        run_id=run_id(),
        body={"input": {"é": [1]}},
        saga="orders",
        version=None,
        key="k",
        audit_id=str(uuid4()),
    )
    async with database.transaction() as tx:
        await pending_requests.record(tx, [])
        await pending_requests.record(tx, [item])
        [found] = await request_queue.take_starts(tx, {"orders": 9}, definition_ids=[], limit=9)
        assert await take(tx, sagas=["orders"]) == []
    assert (found.kind, found.run_id, json.loads(found.body)) == (item.kind, item.run_id, item.body)
    assert (found.body_size, found.body_complete, found.key, found.role) == (20, True, "k", None)
    assert (found.saga, found.version, found.audit_id) == ("orders", None, item.audit_id)


async def test_a_start_goes_to_a_worker_that_has_its_saga_and_version(
    database: Database, definition_id: int
):
    newest, exact, other = (
        NewRequest(kind="start", run_id=run_id(), body={}, saga="place-order", version=v)
        for v in (None, 1, 2)
    )
    async with database.transaction() as tx:
        await pending_requests.record(tx, [newest, exact, other])
        assert await take(tx, sagas=["returns"], definition_ids=[definition_id + 1]) == []
        found = await take(tx, sagas=["place-order"], definition_ids=[definition_id])
        assert found == [newest.run_id, exact.run_id]


async def test_what_belongs_to_a_run_goes_to_a_worker_that_has_its_definition(
    database: Database, definition_id: int
):
    async with database.transaction() as tx:
        run = await insert_run(tx, definition_id)
        await pending_requests.record(tx, [NewRequest(kind="cancel", run_id=run.run_id, body={})])
        await pending_requests.record(
            tx, [NewRequest(kind="reply", run_id=run.run_id, body={}, definition_id=definition_id)]
        )
        assert await take(tx, sagas=["place-order"], definition_ids=[definition_id + 1]) == []
        assert len(await take(tx, definition_ids=[definition_id])) == 2


async def test_an_accepted_start_stays_for_a_worker_with_the_definition_it_is_pinned_to(
    database: Database, definition_id: int
):
    ours, other = (
        NewRequest(
            kind="start", run_id=run_id(), body={}, saga="place-order", version=1, fingerprint=mark
        )
        for mark in (ORDERS.fingerprint, "another")
    )
    async with database.transaction() as tx:
        await pending_requests.record(tx, [other, ours])
        assert await request_queue.sagas_with_starts(tx, ["place-order"], []) == set()
        assert await request_queue.sagas_with_starts(tx, ["place-order"], [definition_id]) == {
            "place-order"
        }
        assert await take(tx, sagas=["place-order"], definition_ids=[definition_id]) == [
            ours.run_id
        ]
        assert await request_queue.sagas_with_starts(tx, ["place-order"], [definition_id]) == set()


async def test_there_is_something_for_a_worker_as_long_as_it_could_take_something(
    database: Database, definition_id: int
):
    run, later = run_id(), timedelta(hours=1)

    async def anything_for(*ids: int) -> bool:
        return await request_queue.has_work(tx, ["place-order"], ids)

    async with database.transaction() as tx:
        await pending_requests.record(
            tx, [NewRequest(kind="start", run_id=run_id(), body={}, saga="returns")]
        )
        await pending_requests.record(
            tx,
            [NewRequest(kind="start", run_id=run_id(), body={}, saga="place-order", delay=later)],
        )
        await pending_requests.record(
            tx, [NewRequest(kind="cancel", run_id=run, body={}, delay=later)]
        )
        await pending_requests.record(
            tx, [NewRequest(kind="cancel", run_id=run, body={}, awaits_start=True)]
        )
        assert not await anything_for(definition_id)
        await pending_requests.record(
            tx, [NewRequest(kind="reply", run_id=run, body={}, definition_id=definition_id)]
        )
        assert await anything_for(definition_id)
        assert not await anything_for(definition_id + 1)
        await request_queue.unblock_requests(tx, [run])
        assert await anything_for(definition_id + 1), "no definition: any worker may look at it"
        assert len(await take(tx, definition_ids=[definition_id])) == 2
        assert not await anything_for(definition_id)
        await pending_requests.record(
            tx, [NewRequest(kind="start", run_id=run_id(), body={}, saga="place-order", version=1)]
        )
        assert await anything_for(definition_id)
        assert not await anything_for()


async def test_no_more_starts_of_a_saga_are_taken_than_it_has_places_however_they_are_pinned(
    database: Database, definition_id: int
):
    pins = [(None, None), (1, None), (1, ORDERS.fingerprint)] * 3
    items = [
        NewRequest(
            kind="start",
            run_id=run_id(),
            body={},
            saga="place-order",
            version=version,
            fingerprint=mark,
        )
        for version, mark in pins
    ]
    async with database.transaction() as tx:
        await pending_requests.record(tx, items)
        found = await request_queue.take_starts(
            tx, {"place-order": 4}, definition_ids=[definition_id], limit=100
        )
        assert [item.run_id for item in found] == [item.run_id for item in items[:4]]


async def test_a_start_that_waits_is_recorded_once_however_often_it_is_asked_for(
    database: Database,
):
    start = NewRequest(
        kind="start", run_id=run_id(), body={"input": {"n": 1}}, saga="orders", key="k"
    )
    async with database.transaction() as tx:
        await pending_requests.record(tx, [start, start])
    async with database.transaction() as tx:
        await pending_requests.record(tx, [start])
        found = await pending_requests.read_starts(tx, [start.run_id, run_id()])
        assert list(found) == [start.run_id]
        waits = found[start.run_id]
        assert (waits.saga, waits.version, waits.key) == ("orders", None, "k")
        assert json.loads(waits.body) == {"input": {"n": 1}}
        assert await pending_requests.existing_runs(tx, [start.run_id, run_id()]) == {start.run_id}
        assert len(await take(tx, sagas=["orders"])) == 1


async def test_requests_that_are_held_are_counted_up_to_what_is_asked(database: Database):
    start = NewRequest(kind="start", run_id=run_id(), body={}, saga="orders", version=2)
    cancel = NewRequest(kind="cancel", run_id=start.run_id, body={}, awaits_start=True)
    async with database.transaction() as tx:
        await pending_requests.record(tx, [start, *[cancel] * 3])
        for most in (2, 9):
            waiting = await pending_requests.find_starts(tx, [start.run_id], most)
            assert waiting[start.run_id].blocked_requests == min(most, 3)


async def test_starts_that_are_taken_out_while_they_are_looked_for_do_not_wait_any_more(
    database: Database,
):
    """All of them, although only the first is waited for: what is held must not wait for ever."""
    items = [NewRequest(kind="start", run_id=run_id(), body={}, saga="orders") for _ in range(2)]
    async with database.transaction() as tx:
        await pending_requests.record(tx, items)
    looking, found = asyncio.Event(), []

    async def look() -> None:
        async with database.transaction() as tx:
            looking.set()
            found.append(await pending_requests.find_starts(tx, [item.run_id for item in items], 9))

    async with asyncio.TaskGroup() as group, database.transaction() as tx:
        assert len(await take(tx, sagas=["orders"])) == 2
        group.create_task(look())
        await looking.wait()
    assert found == [{}]


async def test_a_cancel_waits_for_the_start_that_was_recorded_before_it(
    database: Database, definition_id: int
):
    start = NewRequest(kind="start", run_id=run_id(), body={}, saga="place-order")
    cancel = NewRequest(kind="cancel", run_id=start.run_id, body={}, awaits_start=True)
    async with database.transaction() as tx:
        await pending_requests.record(tx, [start, cancel])
        assert await take(tx, definition_ids=[definition_id]) == []
        found = await take(tx, sagas=["place-order"], definition_ids=[definition_id])
        assert found == [start.run_id, cancel.run_id]


async def test_what_belongs_to_no_run_at_all_goes_to_anyone(database: Database):
    async with database.transaction() as tx:
        await pending_requests.record(tx, [NewRequest(kind="cancel", run_id=run_id(), body={})])
        assert len(await take(tx)) == 1


async def test_two_workers_take_different_items_oldest_first(database: Database):
    items = [NewRequest(kind="start", run_id=run_id(), body={}, saga="orders") for _ in range(5)]
    ids = [item.run_id for item in items]
    async with database.transaction() as tx:
        await pending_requests.record(tx, items)
    async with database.transaction() as one, database.transaction() as other:
        assert await take(one, sagas=["orders"], limit=3) == ids[:3]
        assert await take(other, sagas=["orders"], limit=3) == ids[3:]


async def test_a_worker_holds_no_more_than_it_takes(database: Database):
    """However many definitions and sagas it has, the others find the rest."""
    numbers, sagas = range(1, 11), [f"saga-{n}" for n in range(10)]
    others = [
        NewRequest(kind="cancel", run_id=run_id(), body={}, definition_id=n)
        for n in numbers
        for _ in range(3)
    ]
    starts = [
        NewRequest(kind="start", run_id=run_id(), body={}, saga=saga)
        for saga in sagas
        for _ in range(3)
    ]
    taken: list[str] = []
    async with database.transaction() as tx:
        await pending_requests.record(tx, others + starts)
    async with database.transaction() as one, database.transaction() as two:
        for tx in (one, two):
            found = await request_queue.take(tx, definition_ids=numbers, limit=15)
            assert len(found) == 15
            turns = dict.fromkeys(sagas, 2)
            begun = await request_queue.take_starts(tx, turns, definition_ids=[], limit=15)
            assert len(begun) == 15 if tx is one else begun
            taken += [each.run_id for each in found + begun]
    assert len(set(taken)) == len(taken)


async def test_what_has_waited_longest_is_taken_first(database: Database):
    earlier, first, second = (NewRequest(kind="cancel", run_id=run_id(), body={}) for _ in range(3))
    async with database.transaction() as tx:
        await pending_requests.record(tx, [earlier])
        [found] = await request_queue.take(tx, definition_ids=[], limit=1)
        await pending_requests.record(tx, [second, first])
        await request_queue.defer(tx, [found.id + 2], timedelta(seconds=-1))
        [found] = await request_queue.take(tx, definition_ids=[], limit=1)
    assert found.run_id == first.run_id
