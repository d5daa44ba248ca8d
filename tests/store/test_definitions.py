import pytest

from saga_engine.decider.triggers import ReplyReceived
from saga_engine.errors import ConfigurationError
from saga_engine.saga.definition import Saga
from saga_engine.store import definitions
from saga_engine.store.database import Database
from saga_engine.vocabulary import Direction, Outcome
from tests.kit.stored_runs import ORDERS, apply_trigger, insert_run
from tests.kit.stores import RequesterStore


def changed(version: int = 1) -> Saga:
    saga = Saga("place-order", version=version, input=dict)

    @saga.step(command="stock.take", reply=dict)
    def reserve(order: dict) -> dict:
        return order

    return saga


async def test_registering_twice_gives_the_same_ids(store: RequesterStore):
    async with store.transaction() as tx:
        first = await tx.register_definitions([ORDERS, changed(2)])
        assert await tx.register_definitions([changed(2), ORDERS]) == first
        assert set(first) == {("place-order", 1), ("place-order", 2)}
        assert await tx.register_definitions([]) == {}


async def test_a_definition_can_be_shown_without_its_module(database: Database):
    async with database.transaction() as tx:
        await definitions.register(tx, [ORDERS])
        [known] = await definitions.read_all(tx)
    assert (known.name, known.version, known.fingerprint) == (
        *("place-order", 1, ORDERS.fingerprint),
    )
    assert known.document["steps"][1] == {
        "name": "charge",
        "kind": "compensatable",
        "command": "payment.charge",
        "compensation": "payment.refund",
        "after": ["reserve"],
    }


async def test_other_steps_under_one_version_are_refused_while_runs_are_unfinished(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        run = await insert_run(tx, definition_id)
    with pytest.raises(ConfigurationError, match="next version, and load both"):
        async with store.transaction() as tx:
            await tx.register_definitions([changed()])
    async with store.transaction() as tx:
        for step in ("reserve", "charge"):
            await apply_trigger(
                tx,
                run.run_id,
                ReplyReceived(
                    step=step,
                    direction=Direction.ACTION,
                    attempt=1,
                    outcome=Outcome.SUCCEEDED,
                    body={},
                ),
            )
        assert await tx.register_definitions([changed()]) != {("place-order", 1): definition_id}


async def test_a_new_version_is_registered_while_runs_of_the_old_one_are_unfinished(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        await insert_run(tx, definition_id)
        assert len(await tx.register_definitions([ORDERS, changed(2)])) == 2


async def test_the_versions_that_a_worker_has_ever_loaded_are_known(store: RequesterStore):
    async with store.transaction() as tx:
        await tx.register_definitions([ORDERS, changed(2)])
        assert await tx.known_versions(["place-order", "x"]) == {
            ("place-order", 1),
            ("place-order", 2),
        }
        assert await tx.known_versions(["x"]) == set()
