"""Which pending requests a worker takes, and in which order."""

from datetime import timedelta

from saga_engine.store.pending_requests import NewRequest, RequestKind
from tests.kit.stored_runs import ORDERS, insert_run, run_id, take_run_ids
from tests.kit.stores import RequesterStore


async def test_a_worker_takes_starts_of_sagas_and_versions_that_it_has(
    store: RequesterStore, definition_id: int
):
    newest, exact, other = (
        NewRequest(kind=RequestKind.START, run_id=run_id(), body={}, saga="place-order", version=v)
        for v in (None, 1, 2)
    )
    async with store.transaction() as tx:
        await tx.record_requests([newest, exact, other])
        assert await take_run_ids(tx, sagas=["returns"], definition_ids=[definition_id + 1]) == []
        found = await take_run_ids(tx, sagas=["place-order"], definition_ids=[definition_id])
        assert found == [newest.run_id, exact.run_id]


async def test_a_worker_takes_requests_for_runs_whose_definition_it_has(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        run = await insert_run(tx, definition_id)
        await tx.record_requests([NewRequest(kind=RequestKind.CANCEL, run_id=run.run_id, body={})])
        await tx.record_requests(
            [
                NewRequest(
                    kind=RequestKind.REPLY, run_id=run.run_id, body={}, definition_id=definition_id
                )
            ]
        )
        assert (
            await take_run_ids(tx, sagas=["place-order"], definition_ids=[definition_id + 1]) == []
        )
        assert len(await take_run_ids(tx, definition_ids=[definition_id])) == 2


async def test_a_pinned_start_is_taken_only_with_its_definition(
    store: RequesterStore, definition_id: int
):
    ours, other = (
        NewRequest(
            kind=RequestKind.START,
            run_id=run_id(),
            body={},
            saga="place-order",
            version=1,
            fingerprint=mark,
        )
        for mark in (ORDERS.fingerprint, "another")
    )
    async with store.transaction() as tx:
        await tx.record_requests([other, ours])
        assert await tx.sagas_with_starts(["place-order"], []) == set()
        assert await tx.sagas_with_starts(["place-order"], [definition_id]) == {"place-order"}
        assert await take_run_ids(tx, sagas=["place-order"], definition_ids=[definition_id]) == [
            ours.run_id
        ]
        assert await tx.sagas_with_starts(["place-order"], [definition_id]) == set()


async def test_a_worker_has_work_exactly_when_it_can_take_a_request(
    store: RequesterStore, definition_id: int
):
    run, later = run_id(), timedelta(hours=1)

    async def anything_for(*ids: int) -> bool:
        return await tx.has_work(["place-order"], ids)

    async with store.transaction() as tx:
        await tx.record_requests(
            [NewRequest(kind=RequestKind.START, run_id=run_id(), body={}, saga="returns")]
        )
        await tx.record_requests(
            [
                NewRequest(
                    kind=RequestKind.START,
                    run_id=run_id(),
                    body={},
                    saga="place-order",
                    delay=later,
                )
            ],
        )
        await tx.record_requests(
            [NewRequest(kind=RequestKind.CANCEL, run_id=run, body={}, delay=later)]
        )
        await tx.record_requests(
            [NewRequest(kind=RequestKind.CANCEL, run_id=run, body={}, awaits_start=True)]
        )
        assert not await anything_for(definition_id)
        await tx.record_requests(
            [NewRequest(kind=RequestKind.REPLY, run_id=run, body={}, definition_id=definition_id)]
        )
        assert await anything_for(definition_id)
        assert not await anything_for(definition_id + 1)
        await tx.record_requests(
            [NewRequest(kind=RequestKind.START, run_id=run, body={}, saga="shoes")]
        )
        await tx.take_starts({"shoes": 1}, definition_ids=[], limit=1)  # unblocks what waits for it
        assert await anything_for(definition_id + 1), "no definition: any worker may look at it"
        assert len(await take_run_ids(tx, definition_ids=[definition_id])) == 2
        assert not await anything_for(definition_id)
        await tx.record_requests(
            [
                NewRequest(
                    kind=RequestKind.START, run_id=run_id(), body={}, saga="place-order", version=1
                )
            ]
        )
        assert await anything_for(definition_id)
        assert not await anything_for()


async def test_no_more_starts_of_a_saga_are_taken_than_it_has_slots(
    store: RequesterStore, definition_id: int
):
    pins = [(None, None), (1, None), (1, ORDERS.fingerprint)] * 3
    items = [
        NewRequest(
            kind=RequestKind.START,
            run_id=run_id(),
            body={},
            saga="place-order",
            version=version,
            fingerprint=mark,
        )
        for version, mark in pins
    ]
    async with store.transaction() as tx:
        await tx.record_requests(items)
        found = await tx.take_starts({"place-order": 4}, definition_ids=[definition_id], limit=100)
        assert [item.run_id for item in found] == [item.run_id for item in items[:4]]


async def test_a_cancel_waits_for_the_start_before_it(store: RequesterStore, definition_id: int):
    start = NewRequest(kind=RequestKind.START, run_id=run_id(), body={}, saga="place-order")
    cancel = NewRequest(kind=RequestKind.CANCEL, run_id=start.run_id, body={}, awaits_start=True)
    async with store.transaction() as tx:
        await tx.record_requests([start, cancel])
        assert await take_run_ids(tx, definition_ids=[definition_id]) == []
        found = await take_run_ids(tx, sagas=["place-order"], definition_ids=[definition_id])
        assert found == [start.run_id, cancel.run_id]


async def test_a_request_for_an_unknown_run_goes_to_any_worker(store: RequesterStore):
    async with store.transaction() as tx:
        await tx.record_requests([NewRequest(kind=RequestKind.CANCEL, run_id=run_id(), body={})])
        assert len(await take_run_ids(tx)) == 1


async def test_two_workers_take_different_requests_the_oldest_first(store: RequesterStore):
    items = [
        NewRequest(kind=RequestKind.START, run_id=run_id(), body={}, saga="orders")
        for _ in range(5)
    ]
    ids = [item.run_id for item in items]
    async with store.transaction() as tx:
        await tx.record_requests(items)
    async with store.transaction() as one, store.transaction() as other:
        assert await take_run_ids(one, sagas=["orders"], limit=3) == ids[:3]
        assert await take_run_ids(other, sagas=["orders"], limit=3) == ids[3:]


async def test_a_worker_locks_only_the_requests_that_it_takes(store: RequesterStore):
    """However many definitions and sagas it has, the others find the rest."""
    numbers, sagas = range(1, 11), [f"saga-{n}" for n in range(10)]
    others = [
        NewRequest(kind=RequestKind.CANCEL, run_id=run_id(), body={}, definition_id=n)
        for n in numbers
        for _ in range(3)
    ]
    starts = [
        NewRequest(kind=RequestKind.START, run_id=run_id(), body={}, saga=saga)
        for saga in sagas
        for _ in range(3)
    ]
    taken: list[str] = []
    async with store.transaction() as tx:
        await tx.record_requests(others + starts)
    async with store.transaction() as one, store.transaction() as two:
        for tx in (one, two):
            found = await tx.take_requests(definition_ids=numbers, limit=15)
            assert len(found) == 15
            turns = dict.fromkeys(sagas, 2)
            starts_taken = await tx.take_starts(turns, definition_ids=[], limit=15)
            assert len(starts_taken) == 15 if tx is one else starts_taken
            taken += [each.run_id for each in found + starts_taken]
    assert len(set(taken)) == len(taken)


async def test_the_request_that_has_waited_longest_is_taken_first(store: RequesterStore):
    earlier, first, second = (
        NewRequest(kind=RequestKind.CANCEL, run_id=run_id(), body={}) for _ in range(3)
    )
    async with store.transaction() as tx:
        await tx.record_requests([earlier])
        [found] = await tx.take_requests(definition_ids=[], limit=1)
        await tx.record_requests([second, first])
        await tx.defer_requests([found.id + 2], timedelta(seconds=-1))
        [found] = await tx.take_requests(definition_ids=[], limit=1)
    assert found.run_id == first.run_id
