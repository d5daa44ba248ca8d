import asyncio

import pytest

from saga_engine.identifiers import uuid7
from saga_engine.store import business_keys
from saga_engine.store.business_keys import KeyOwner, KeyRequest
from saga_engine.store.checked_requests import NewStart
from saga_engine.vocabulary import Json
from tests.kit.stored_runs import run_id
from tests.kit.stores import RequesterStore, RequesterTransaction

INPUT: dict[str, Json] = {"a": 1, "b": {"x": 1, "y": 2}}
REORDERED: dict[str, Json] = {"b": {"y": 2, "x": 1}, "a": 1}


async def recorded(tx: RequesterTransaction, wanted: KeyRequest) -> KeyOwner:
    """Record a start that wants a key, as a caller does in its transaction."""
    name, key, run_id_, given = wanted.saga, wanted.key, wanted.run_id, wanted.input
    start = NewStart(
        saga=name,
        version=1,
        run_id=run_id_,
        key=key,
        encrypted_input=given,
        plain_input=given,
        must_be_known=False,
        fingerprint="f",
    )
    started = await tx.record_start(start)
    assert started is not None
    return started.owner


async def test_a_recorded_start_has_its_key(store: RequesterStore):
    mine, again, other = (
        KeyRequest("orders", "o-1", str(uuid7()), i) for i in (INPUT, REORDERED, {})
    )
    async with store.transaction() as tx:
        assert await recorded(tx, mine) == KeyOwner(mine.run_id, True)
        assert await recorded(tx, again) == KeyOwner(mine.run_id, True)
        assert await recorded(tx, other) == KeyOwner(mine.run_id, False)
        assert await tx.reserve_keys([again]) == [KeyOwner(mine.run_id, True)]


async def test_a_start_of_an_unknown_saga_records_nothing(store: RequesterStore):
    async with store.transaction() as tx:
        start = NewStart(
            saga="nothing",
            version=None,
            run_id=str(uuid7()),
            key="k",
            encrypted_input={},
            plain_input={},
            must_be_known=True,
        )
        assert await tx.record_start(start) is None
        assert await tx.reserve_keys([KeyRequest("nothing", "k", run_id(), {})]) != []
        assert await tx.find_starts([start.run_id]) == {}


async def test_a_free_key_is_reserved(store: RequesterStore):
    mine = KeyRequest("orders", "o-1", run_id(), INPUT)
    async with store.transaction() as tx:
        assert await tx.reserve_keys([mine]) == [KeyOwner(mine.run_id, True)]
        assert await tx.reserve_keys([mine]) == [KeyOwner(mine.run_id, True)]
        assert await tx.reserve_keys([]) == []


async def test_the_same_key_with_the_same_input_finds_the_same_run(store: RequesterStore):
    first, again = (KeyRequest("orders", "o-1", run_id(), i) for i in (INPUT, REORDERED))
    async with store.transaction() as tx:
        await tx.reserve_keys([first])
    async with store.transaction() as tx:
        assert await tx.reserve_keys([again]) == [KeyOwner(first.run_id, True)]


async def test_the_same_key_with_another_input_is_a_conflict(store: RequesterStore):
    first, other = (KeyRequest("orders", "o-1", run_id(), i) for i in (INPUT, {"a": 2}))
    async with store.transaction() as tx:
        assert await tx.reserve_keys([first, other]) == [
            KeyOwner(first.run_id, True),
            KeyOwner(first.run_id, False),
        ]


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [
        (1, 1.0, True),
        (10**16, 1e16, True),
        (2**63, 2.0**63, True),
        (0, -0.0, True),
        ([1.5, "1.0"], [1.50, "1.0"], True),
        (1, True, False),
        (1, "1", False),
        ("1.0", "1", False),
        (2**53, 2**53 + 1, False),
        (1e300, 1e301, False),
    ],
)
async def test_inputs_are_compared_as_json_values(store: RequesterStore, first, second, equal):
    one, other = (KeyRequest("orders", "o-1", run_id(), {"n": each}) for each in (first, second))
    async with store.transaction() as tx:
        await tx.reserve_keys([one])
        assert await tx.reserve_keys([other]) == [KeyOwner(one.run_id, equal)]
    assert business_keys.equal_inputs(one.input, other.input) is equal


async def test_a_key_of_another_saga_is_another_key(store: RequesterStore):
    wanted = [KeyRequest(saga, "o-1", run_id(), INPUT) for saga in ("orders", "returns")]
    async with store.transaction() as tx:
        assert await tx.reserve_keys(wanted) == [KeyOwner(each.run_id, True) for each in wanted]


async def test_the_second_of_two_transactions_finds_the_owner_that_the_first_committed(
    store: RequesterStore,
):
    first, second = (KeyRequest("orders", "o-1", str(uuid7()), INPUT) for _ in range(2))
    reserved, waiting = asyncio.Event(), asyncio.Event()

    async def late() -> KeyOwner:
        async with store.transaction() as tx:
            await reserved.wait()
            waiting.set()
            return await recorded(tx, second)

    async with asyncio.TaskGroup() as group:
        loser = group.create_task(late())
        async with store.transaction() as tx:
            await recorded(tx, first)
            reserved.set()
            await waiting.wait()
    assert loser.result() == KeyOwner(first.run_id, True)


async def test_a_rolled_back_key_is_free_again(store: RequesterStore):
    first, second = (KeyRequest("orders", "o-1", run_id(), INPUT) for _ in range(2))

    async def fail() -> None:
        async with store.transaction() as tx:
            await tx.reserve_keys([first])
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    async with store.transaction() as tx:
        assert await tx.reserve_keys([second]) == [KeyOwner(second.run_id, True)]


async def test_concurrent_reservations_of_the_same_keys_do_not_deadlock(store: RequesterStore):
    names = [f"o-{number}" for number in range(50)]

    async def want(ordered: list[str]) -> None:
        async with store.transaction() as tx:
            await tx.reserve_keys([KeyRequest("orders", name, run_id(), INPUT) for name in ordered])

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(want(names))
            group.create_task(want(names[::-1]))
