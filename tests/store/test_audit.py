from uuid import uuid4

from saga_engine.store import audit, identity
from saga_engine.store.audit import Act, Verdict
from saga_engine.store.database import Database
from tests.store.orders import run_id


async def test_an_act_is_recorded_once_and_settled_once(database: Database):
    act = Act(str(uuid4()), "ada", "cancel", "changed her mind", run_id())
    async with database.transaction() as tx:
        await audit.record(tx, [])
        await audit.settle(tx, [])
        await audit.record(tx, [act])
        await audit.record(tx, [act])
        waiting = await audit.find(tx, act.id)
        await audit.settle(tx, [Verdict(act.id, True, "done"), Verdict(act.id, False, "again")])
        await audit.settle(tx, [Verdict(act.id, False, "late")])
        settled = await audit.find(tx, act.id)
        assert await audit.of_run(tx, act.run_id) == [settled]
        assert await audit.find(tx, str(uuid4())) is None
    assert waiting.outcome is None
    assert (settled.outcome, settled.message, settled.by) == ("accepted", "done", "ada")


async def test_a_refusal_keeps_its_sentence(database: Database):
    act = Act(str(uuid4()), "ada", "resolve", "why", run_id())
    async with database.transaction() as tx:
        await audit.record(tx, [act])
        await audit.settle(tx, [Verdict(act.id, False, "No such incident.")])
        found = await audit.find(tx, act.id)
    assert (found.outcome, found.message) == ("refused", "No such incident.")


async def test_every_worker_has_the_same_key_and_the_same_engine(database: Database):
    async with database.transaction() as tx:
        first = await identity.token_key(tx), await identity.engine_id(tx)
    async with database.transaction() as tx:
        assert (await identity.token_key(tx), await identity.engine_id(tx)) == first
    assert len(first[0]) == identity.TOKEN_KEY_BYTES
