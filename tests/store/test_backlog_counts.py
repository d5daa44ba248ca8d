"""The values of the gauges."""

from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.store import (
    backlog_counts,
    dead_letters,
    outbox,
    pending_requests,
    runs,
)
from saga_engine.store.database import Database
from saga_engine.store.dead_letters import DeadLetter
from saga_engine.store.pending_requests import NewRequest
from saga_engine.vocabulary import Status
from tests.kit.stored_runs import apply_trigger, decide_start, insert_run, run_id, sends
from tests.store.test_run_queries import CHARGED, DECLINED, RESERVED


async def test_the_gauges_count_what_is_unfinished_open_or_pending(
    database: Database, definition_id: int
):
    async with database.transaction() as tx:
        done, turned, _ = [(await insert_run(tx, definition_id)).run_id for _ in range(3)]
        for trigger in (RESERVED, CHARGED):
            await apply_trigger(tx, done, trigger)
        for trigger in (RESERVED, DECLINED):
            await apply_trigger(tx, turned, trigger)
        await outbox.add(tx, sends(decide_start(await runs.database_now(tx))))
        await pending_requests.record(
            tx, [NewRequest(kind="start", run_id=run_id(), body={}, saga="x")]
        )
        await pending_requests.record(tx, [NewRequest(kind="cancel", run_id=turned, body={})])
        letters = [
            DeadLetter(
                queue="q", reason=DeadLetterReason.BAD_REQUEST, detail="", body=b"", body_size=0
            )
        ] * 2
        await dead_letters.record(tx, letters, 1)
        counts = await backlog_counts.count_backlog(tx)
    assert counts.runs == {
        ("place-order", Status.RUNNING): 1,
        ("place-order", Status.COMPENSATING): 1,
    }
    assert counts.oldest_run_age.keys() == {"place-order"}
    assert counts.dead_letters == {("q", "bad_request"): 2}
    assert (counts.outbox_pending, counts.pending_requests, counts.awaiting_definition) == (1, 2, 1)
    assert (counts.timers_pending, counts.timer_overdue) == (2, 0.0)
    assert counts.outbox_oldest_age > 0
