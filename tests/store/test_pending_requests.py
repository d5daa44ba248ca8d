import asyncio
import json
from uuid import uuid4

from saga_engine.store.pending_requests import NewRequest, RequestKind
from tests.kit.stored_runs import run_id, take_run_ids
from tests.kit.stores import RequesterStore


async def test_a_request_is_taken_once_and_unchanged(store: RequesterStore):
    item = NewRequest(
        kind=RequestKind.START,
        run_id=run_id(),
        body={"input": {"é": [1]}},
        saga="orders",
        version=None,
        key="k",
        audit_id=str(uuid4()),
    )
    async with store.transaction() as tx:
        await tx.record_requests([])
        await tx.record_requests([item])
        [found] = await tx.take_starts({"orders": 9}, definition_ids=[], limit=9)
        assert await take_run_ids(tx, sagas=["orders"]) == []
    assert (found.kind, found.run_id, json.loads(found.body)) == (item.kind, item.run_id, item.body)
    assert (found.body_size, found.body_complete, found.key, found.role) == (20, True, "k", None)
    assert (found.saga, found.version, found.audit_id) == ("orders", None, item.audit_id)


async def test_a_pending_start_is_recorded_once(
    store: RequesterStore,
):
    start = NewRequest(
        kind=RequestKind.START, run_id=run_id(), body={"input": {"n": 1}}, saga="orders", key="k"
    )
    async with store.transaction() as tx:
        await tx.record_requests([start, start])
    async with store.transaction() as tx:
        await tx.record_requests([start])
        found = await tx.read_starts([start.run_id, run_id()])
        assert list(found) == [start.run_id]
        waits = found[start.run_id]
        assert (waits.saga, waits.version, waits.key) == ("orders", None, "k")
        assert json.loads(waits.body) == {"input": {"n": 1}}
        assert await tx.existing_runs([start.run_id, run_id()]) == {start.run_id}
        assert len(await take_run_ids(tx, sagas=["orders"])) == 1


async def test_blocked_requests_are_counted_up_to_a_limit(store: RequesterStore):
    start = NewRequest(kind=RequestKind.START, run_id=run_id(), body={}, saga="orders", version=2)
    cancel = NewRequest(kind=RequestKind.CANCEL, run_id=start.run_id, body={}, awaits_start=True)
    async with store.transaction() as tx:
        await tx.record_requests([start, *[cancel] * 3])
        for most in (2, 9):
            waiting = await tx.find_starts([start.run_id], most)
            assert waiting[start.run_id].blocked_requests == min(most, 3)


async def test_starts_that_another_worker_takes_meanwhile_are_not_found(
    store: RequesterStore,
):
    """
    All of them, although only the first is waited for: a blocked request must not wait without end.
    """
    items = [
        NewRequest(kind=RequestKind.START, run_id=run_id(), body={}, saga="orders")
        for _ in range(2)
    ]
    async with store.transaction() as tx:
        await tx.record_requests(items)
    looking, found = asyncio.Event(), []

    async def look() -> None:
        async with store.transaction() as tx:
            looking.set()
            found.append(await tx.find_starts([item.run_id for item in items], 9))

    async with asyncio.TaskGroup() as group, store.transaction() as tx:
        assert len(await take_run_ids(tx, sagas=["orders"])) == 2
        group.create_task(look())
        await looking.wait()
    assert found == [{}]
