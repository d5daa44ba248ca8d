"""The values of the gauges."""

from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.store.dead_letters import DeadLetter
from saga_engine.store.pending_requests import NewRequest, RequestKind
from saga_engine.vocabulary import Status
from tests.kit.stored_runs import (
    CHARGED,
    DECLINED,
    RESERVED,
    apply_trigger,
    insert_run,
    run_id,
)
from tests.kit.stores import RequesterStore


async def test_the_gauges_count_what_is_unfinished_open_or_pending(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        done, turned, _ = [(await insert_run(tx, definition_id)).run_id for _ in range(3)]
        for trigger in (RESERVED, CHARGED):
            await apply_trigger(tx, done, trigger)
        await apply_trigger(tx, turned, RESERVED)
        await apply_trigger(tx, turned, DECLINED, with_commands=True)
        await tx.record_requests(
            [NewRequest(kind=RequestKind.START, run_id=run_id(), body={}, saga="x")]
        )
        await tx.record_requests([NewRequest(kind=RequestKind.CANCEL, run_id=turned, body={})])
        letters = [
            DeadLetter(
                queue="q", reason=DeadLetterReason.BAD_REQUEST, detail="", body=b"", body_size=0
            )
        ] * 2
        await tx.record_dead_letters(letters, 1, quota=100)
        counts = await tx.count_backlog(10_000)
    assert counts.runs == {
        ("place-order", Status.RUNNING): 1,
        ("place-order", Status.COMPENSATING): 1,
    }
    assert counts.oldest_run_age.keys() == {"place-order"}
    assert counts.dead_letters == {("q", "bad_request"): 2}
    assert (counts.outbox_pending, counts.pending_requests, counts.awaiting_definition) == (1, 2, 1)
    assert (counts.timers_pending, counts.timer_overdue) == (2, 0.0)
    assert counts.outbox_oldest_age > 0
