from datetime import timedelta
from uuid import uuid4

from sqlalchemy import text

from saga_engine.protocol.token import CommandRef, new_signing_key, redact_token, sign_token
from saga_engine.store import audit, engine_identity
from saga_engine.store.audit import ActionKind, ActionOutcome, AuditOutcome, OperatorAction
from saga_engine.store.database import Database
from saga_engine.vocabulary import Direction
from tests.kit.stored_runs import run_id


async def test_an_act_is_recorded_once_and_settled_once(database: Database):
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


async def test_a_refusal_keeps_its_sentence(database: Database):
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


async def test_every_worker_has_the_same_key_and_the_same_engine(database: Database):
    async with database.transaction() as tx:
        first = await engine_identity.token_keys(tx), await engine_identity.engine_id(tx)
    async with database.transaction() as tx:
        assert (await engine_identity.token_keys(tx), await engine_identity.engine_id(tx)) == first
    assert first[0].accepted == (first[0].signing,)
    assert len(first[0].signing) == engine_identity.TOKEN_KEY_BYTES


async def test_a_new_key_signs_after_its_delay_and_the_one_before_it_is_accepted(
    database: Database,
):
    hour, now = timedelta(hours=1), timedelta()
    async with database.transaction() as tx:
        [first] = (await engine_identity.token_keys(tx)).accepted
        assert await engine_identity.rotate_token_key(tx, hour) is not None
        waiting = await engine_identity.token_keys(tx)
        assert await engine_identity.rotate_token_key(tx, now) is None, (
            "the last one does not sign yet"
        )
        await tx.execute(
            text("UPDATE saga_engine.engine_identity SET token_key_active_from = '-infinity'")
        )
        second = await engine_identity.token_keys(tx)
        assert await engine_identity.rotate_token_key(tx, now) is not None
        third = await engine_identity.token_keys(tx)
    assert (waiting.signing, waiting.accepted[1]) == (first, first)
    assert second.accepted == waiting.accepted
    assert second.signing == waiting.accepted[0] != first
    assert third.accepted == (third.signing, second.signing), "the first is accepted no more"
    assert first.hex() not in repr(third) + repr(second)


async def test_a_key_that_workers_may_still_sign_with_is_not_disowned(database: Database):
    """A worker that has not read the key of the last rotation yet signs with the one before."""
    two, ago = (
        timedelta(minutes=2),
        text(
            "UPDATE saga_engine.engine_identity"
            " SET token_key_active_from = clock_timestamp() - interval '90 s'"
        ),
    )
    async with database.transaction() as tx:
        await engine_identity.rotate_token_key(tx, two)
        await tx.execute(ago)
        before = await engine_identity.token_keys(tx)
        assert await engine_identity.rotate_token_key(tx, two) is None
        assert await engine_identity.token_keys(tx) == before
        at, now = (
            await tx.execute(
                text("SELECT token_key_active_from, now() FROM saga_engine.engine_identity")
            )
        ).one()
        assert await engine_identity.next_rotation_at(tx, two) == at + two > now
        assert await engine_identity.rotate_token_key(tx, two - timedelta(seconds=31)) is not None


async def test_the_database_signs_as_the_engine_does(database: Database):
    key, ref = new_signing_key(), CommandRef(uuid4(), "charge-é", Direction.COMPENSATION, 12)
    async with database.transaction() as tx:
        signed = await tx.execute(
            text("SELECT saga_engine.sign_token(:key, :said)"),
            {"key": key, "said": redact_token(sign_token(key, ref))},
        )
    assert signed.scalar_one() == sign_token(key, ref)
