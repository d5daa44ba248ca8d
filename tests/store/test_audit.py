from uuid import uuid4

from saga_engine.store import audit
from saga_engine.store.audit import ActionKind, ActionOutcome, AuditOutcome, OperatorAction
from saga_engine.store.database import Database
from tests.kit.stored_runs import run_id


async def test_an_action_has_one_record_and_one_outcome(database: Database):
    act = OperatorAction(
        id=str(uuid4()),
        operator="ada",
        action=ActionKind.CANCEL,
        reason="changed her mind",
        run_id=run_id(),
    )
    async with database.transaction() as tx:
        await audit.record(tx, [])
        await audit.record_outcomes(tx, [])
        await audit.record(tx, [act])
        await audit.record(tx, [act])
        waiting = await audit.find(tx, act.id)
        await audit.record_outcomes(
            tx,
            [
                ActionOutcome(act.id, AuditOutcome.ACCEPTED, "done"),
                ActionOutcome(act.id, AuditOutcome.REFUSED, "again"),
            ],
        )
        await audit.record_outcomes(tx, [ActionOutcome(act.id, AuditOutcome.REFUSED, "late")])
        settled = await audit.find(tx, act.id)
        assert act.run_id is not None
        assert await audit.list_for_run(tx, act.run_id) == [settled]
        assert await audit.find(tx, str(uuid4())) is None
    assert waiting is not None
    assert waiting.outcome is None
    assert settled is not None
    assert (settled.outcome, settled.message, settled.operator) == ("accepted", "done", "ada")


async def test_a_refused_action_keeps_its_message(database: Database):
    act = OperatorAction(
        id=str(uuid4()), operator="ada", action=ActionKind.RETRY, reason="why", run_id=run_id()
    )
    async with database.transaction() as tx:
        await audit.record(tx, [act])
        await audit.record_outcomes(
            tx, [ActionOutcome(act.id, AuditOutcome.REFUSED, "No such incident.")]
        )
        found = await audit.find(tx, act.id)
    assert found is not None
    assert (found.outcome, found.message) == ("refused", "No such incident.")
