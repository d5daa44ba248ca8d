"""What is settled is kept for some days, deleted in portions, and chosen without being read."""

from sqlalchemy import text

from saga_engine.store import (
    audit,
    dead_letter_actions,
    dead_letter_queries,
    dead_letters,
    retention,
)
from saga_engine.store.audit import ActionKind, ActionOutcome, AuditOutcome, OperatorAction
from saga_engine.store.database import Database, SqlAlchemyTransaction
from saga_engine.store.dead_letter_queries import DeadLetterFilter
from saga_engine.store.dead_letters import DeadLetter, DeadLetterState
from tests.kit.stored_runs import run_id
from tests.store.test_unrelated_rows import BLOCKS

LETTER = DeadLetter(
    queue="saga.requests", reason="bad_request", detail="It is none.", body=b"{}", body_size=2
)


async def letters(tx: SqlAlchemyTransaction, *reasons: str, size: int = 2) -> list[int]:
    """Record one of each reason; their ids."""
    last = max(await dead_letter_queries.find_ids(tx, DeadLetterFilter(), limit=100_000), default=0)
    body = b"x" * size
    made = [
        DeadLetter(queue="saga.requests", reason=reason, detail="", body=body, body_size=size)
        for reason in reasons
    ]
    await dead_letters.record(tx, made, size)
    return await dead_letter_queries.find_ids(
        tx, DeadLetterFilter(), limit=len(reasons), after_id=last
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


async def test_settled_letters_and_acts_are_deleted_when_their_days_are_over(database: Database):
    async with database.transaction() as tx:
        settled, waiting = await letters(tx, "a", "b")
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


async def test_an_act_that_is_not_decided_yet_is_kept_however_old(database: Database):
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


async def test_more_than_a_portion_is_deleted_in_several(database: Database, monkeypatch):
    monkeypatch.setattr(retention, "BATCH_SIZE", 2)
    async with database.transaction() as tx:
        ids = await letters(tx, *["a"] * 5)
        await dead_letter_actions.mark_discarded(tx, ids, operator="ann", reason="known bug")
        await age(tx, 2)
    assert await retention.purge_expired(database, dead_letter_days=1, audit_days=0) == 5


async def test_letters_are_chosen_by_what_they_have_in_common(database: Database):
    async with database.transaction() as tx:
        first, second, third = await letters(tx, "a", "b", "a")
        await dead_letter_actions.mark_discarded(tx, [third], operator="ann", reason="known bug")

        async def chosen(**common) -> list[int]:
            return await dead_letter_queries.find_ids(tx, DeadLetterFilter(**common), limit=9)

        assert await chosen(reason="a") == [first, third]
        assert await chosen(state=DeadLetterState.OPEN, excluded_reason="b") == [first]
        assert await chosen(state=DeadLetterState.DISCARDED) == [third]
        assert await chosen(queue="saga.replies") == await chosen(min_age_days=1) == []
        assert await dead_letter_queries.find_ids(
            tx, DeadLetterFilter(), limit=9, after_id=first
        ) == [
            second,
            third,
        ]


async def test_marking_and_deleting_many_reads_no_body(database: Database):
    """Two hundred bodies of 200 KiB would be five thousand pages."""
    async with database.transaction() as tx:
        await tx.execute(
            text("ALTER TABLE saga_engine.dead_letter ALTER body SET STORAGE EXTERNAL")
        )
        ids = await letters(tx, *["a"] * 200, size=200 * 1024)
    async with database.transaction() as tx:
        before = (await tx.execute(BLOCKS)).scalar_one()
        assert (
            await dead_letter_queries.find_ids(
                tx, DeadLetterFilter(state=DeadLetterState.OPEN), limit=1000
            )
            == ids
        )
        assert (
            len(
                await dead_letter_actions.mark_discarded(
                    tx, ids, operator="ann", reason="known bug"
                )
            )
            == 200
        )
        assert (await tx.execute(BLOCKS)).scalar_one() - before < 4000


async def test_what_is_sent_again_is_read_in_portions_of_bounded_size(database: Database):
    async with database.transaction() as tx:
        small = await letters(tx, *["a"] * 3)
        large = await letters(tx, *["a"] * 2, size=1000)
        made = await dead_letter_queries.split_by_size(
            tx, [*small, *large, 10**9], max_letters=2, max_bytes=900
        )
    assert made == [small[:2], small[2:], large[:1], large[1:]]
