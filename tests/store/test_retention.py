"""What is settled is kept for some days, deleted in portions, and chosen without being read."""

from sqlalchemy import text

from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.store import (
    audit,
    dead_letter_actions,
    dead_letter_queries,
    retention,
)
from saga_engine.store.audit import ActionKind, ActionOutcome, AuditOutcome, OperatorAction
from saga_engine.store.database import Database, SqlAlchemyTransaction
from saga_engine.store.dead_letter_queries import DeadLetterFilter
from saga_engine.store.dead_letters import DeadLetter
from tests.kit.dead_letters import record_reasons
from tests.kit.stored_runs import run_id

LETTER = DeadLetter(
    queue="saga.requests",
    reason=DeadLetterReason.BAD_REQUEST,
    detail="It is none.",
    body=b"{}",
    body_size=2,
)


async def age(tx: SqlAlchemyTransaction, days: int) -> None:
    interval = f"interval '{days} days'"
    await tx.execute(
        text(
            f"UPDATE saga_engine.dead_letter SET resolved_at = resolved_at - {interval},"
            f" received_at = received_at - {interval}"
        )
    )
    await tx.execute(text(f"UPDATE saga_engine.audit SET recorded_at = recorded_at - {interval}"))


async def test_resolved_dead_letters_and_actions_are_deleted_after_their_retention(
    database: Database,
):
    async with database.transaction() as tx:
        settled, waiting = await record_reasons(
            tx, DeadLetterReason.BAD_REQUEST, DeadLetterReason.BAD_OUTCOME
        )
        await dead_letter_actions.mark_discarded(tx, [settled], operator="ann", reason="known bug")
        act = run_id()
        await audit.record(
            tx,
            [
                OperatorAction(
                    id=act,
                    operator="ann",
                    action=ActionKind.DISCARD,
                    reason="known bug",
                    run_id=None,
                    target="1",
                )
            ],
        )
        await audit.record_outcomes(tx, [ActionOutcome(act, AuditOutcome.ACCEPTED, "Done.")])
        await age(tx, 30)
    kept = {"dead_letter_days": 31, "audit_days": 31}
    assert await retention.purge_expired(database, **kept) == 0
    assert await retention.purge_expired(database, dead_letter_days=0, audit_days=0) == 0
    assert await retention.purge_expired(database, dead_letter_days=29, audit_days=29) == 3
    async with database.transaction() as tx:
        assert await dead_letter_queries.find_ids(tx, DeadLetterFilter(), limit=9) == [waiting]


async def test_an_action_without_an_outcome_is_kept(database: Database):
    act = OperatorAction(
        id=run_id(),
        operator="ann",
        action=ActionKind.RETRY,
        reason="fixed",
        run_id=run_id(),
        target="1",
    )
    async with database.transaction() as tx:
        await audit.record(tx, [act])
        await age(tx, 300)
    assert await retention.purge_expired(database, dead_letter_days=1, audit_days=1) == 0
    async with database.transaction() as tx:
        assert await audit.find(tx, act.id) is not None


async def test_rows_are_deleted_in_batches(database: Database, monkeypatch):
    monkeypatch.setattr(retention, "BATCH_SIZE", 2)
    async with database.transaction() as tx:
        ids = await record_reasons(tx, *[DeadLetterReason.BAD_REQUEST] * 5)
        await dead_letter_actions.mark_discarded(tx, ids, operator="ann", reason="known bug")
        await age(tx, 2)
    assert await retention.purge_expired(database, dead_letter_days=1, audit_days=0) == 5
