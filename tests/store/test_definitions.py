import pytest

from saga_engine.decider.triggers import ReplyReceived
from saga_engine.errors import ConfigurationError
from saga_engine.saga.definition import Saga
from saga_engine.store import definitions
from saga_engine.store.database import Database
from saga_engine.vocabulary import Direction, Outcome
from tests.kit.stored_runs import BOTH_DATABASES, ORDERS, apply_trigger, insert_run


def changed(version: int = 1) -> Saga:
    saga = Saga("place-order", version=version, input=dict)

    @saga.step(command="stock.take", reply=dict)
    def reserve(order: dict) -> dict:
        return order

    return saga


@BOTH_DATABASES
async def test_registering_twice_gives_the_same_ids(database: Database):
    async with database.transaction() as tx:
        first = await definitions.register(tx, [ORDERS, changed(2)])
        assert await definitions.register(tx, [changed(2), ORDERS]) == first
        assert set(first) == {("place-order", 1), ("place-order", 2)}
        assert await definitions.register(tx, []) == {}


@BOTH_DATABASES
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


@BOTH_DATABASES
async def test_other_steps_under_one_version_are_refused_while_runs_are_unfinished(
    database: Database, definition_id: int
):
    async with database.transaction() as tx:
        run = await insert_run(tx, definition_id)
    with pytest.raises(ConfigurationError, match="next version, and load both"):
        async with database.transaction() as tx:
            await definitions.register(tx, [changed()])
    async with database.transaction() as tx:
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
        assert await definitions.register(tx, [changed()]) != {("place-order", 1): definition_id}


@BOTH_DATABASES
async def test_a_new_version_is_registered_while_runs_of_the_old_one_are_unfinished(
    database: Database, definition_id: int
):
    async with database.transaction() as tx:
        await insert_run(tx, definition_id)
        assert len(await definitions.register(tx, [ORDERS, changed(2)])) == 2
