from typing import Any

from saga_engine.decider.triggers import MalformedReply, ReplyReceived
from saga_engine.store import (
    audit,
    backlog_counts,
    business_keys,
    dead_letters,
    incidents,
    outbox,
    pending_requests,
    run_queries,
    runs,
)
from saga_engine.store.audit import ActionKind, OperatorAction
from saga_engine.store.business_keys import KeyRequest
from saga_engine.store.database import Database
from saga_engine.store.dead_letters import DeadLetter
from saga_engine.store.pending_requests import NewRequest
from saga_engine.vocabulary import Direction, Failure, Outcome, Status
from tests.kit.stored_runs import INPUT, apply_trigger, decide_start, insert_run, run_id, sends

RESERVED = ReplyReceived(
    step="reserve", direction=Direction.ACTION, attempt=1, outcome=Outcome.SUCCEEDED, body={}
)
CHARGED = ReplyReceived(
    step="charge", direction=Direction.ACTION, attempt=1, outcome=Outcome.SUCCEEDED, body={}
)
DECLINED = ReplyReceived(
    step="charge",
    direction=Direction.ACTION,
    attempt=1,
    outcome=Outcome.REJECTED,
    body=None,
    failure=Failure("declined"),
)


async def test_runs_are_listed_newest_first_by_page_and_by_what_is_asked(
    database: Database, definition_id: int
):
    async with database.transaction() as tx:
        ids = sorted([(await insert_run(tx, definition_id)).run_id for _ in range(4)], reverse=True)
        for trigger in (RESERVED, CHARGED):
            await apply_trigger(tx, ids[0], trigger)
        for trigger in (RESERVED, DECLINED):
            await apply_trigger(tx, ids[1], trigger)
        await business_keys.try_reserve(tx, [KeyRequest("place-order", "k", ids[2], INPUT)])

        async def listed(**wanted: Any) -> list[str]:
            return [each.run_id for each in await run_queries.list_runs(tx, limit=3, **wanted)]

        assert await listed() == ids[:3]
        assert await listed(before_run_id=ids[2]) == [ids[3]]
        assert await listed(status=Status.COMPLETED) == [ids[0]]
        assert await listed(status=Status.RUNNING, saga="place-order") == ids[2:]
        assert await listed(saga="returns") == []
        assert await listed(key="k") == [ids[2]]
        found = await run_queries.find(tx, ids[1])
        assert await run_queries.find(tx, run_id()) is None
    assert found is not None
    assert (found.status, found.failure) == (Status.COMPENSATING, Failure("declined"))
    assert (found.saga, found.version, found.open_incidents) == ("place-order", 1, 0)


async def test_showing_a_run_shows_everything_on_record(database: Database, definition_id: int):
    async with database.transaction() as tx:
        run = await insert_run(tx, definition_id)
        await apply_trigger(tx, run.run_id, RESERVED)
        decision = await apply_trigger(
            tx,
            run.run_id,
            MalformedReply(
                step="charge", direction=Direction.ACTION, attempt=1, problem="not JSON"
            ),
        )
        await incidents.record(tx, [(run.run_id, event) for event in decision.events])
        act = OperatorAction(
            id="5f0f8a5e-0000-4000-8000-000000000000",
            operator="ada",
            action=ActionKind.CANCEL,
            reason="why",
            run_id=run.run_id,
        )
        await audit.record(tx, [act])
        shown = await run_queries.read_detail(tx, run.run_id)
        assert await run_queries.read_detail(tx, run_id()) is None
    assert shown is not None
    assert shown.stored_run.run == decision.run
    assert [step["name"] for step in shown.document["steps"]] == ["reserve", "charge"]
    assert [event.revision for event in shown.journal] == list(range(1, decision.run.revision + 1))
    assert len(shown.incidents) == decision.run.incident_count
    assert [each.action for each in shown.audit] == ["cancel"]


async def test_the_gauges_count_what_is_unfinished_open_or_waiting(
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
        letters = [DeadLetter(queue="q", reason="why", detail="", body=b"", body_size=0)] * 2
        await dead_letters.record(tx, letters, 1)
        counts = await backlog_counts.count_backlog(tx)
    assert counts.runs == {
        ("place-order", Status.RUNNING): 1,
        ("place-order", Status.COMPENSATING): 1,
    }
    assert counts.oldest_run_age.keys() == {"place-order"}
    assert counts.dead_letters == {("q", "why"): 2}
    assert (counts.outbox_pending, counts.pending_requests, counts.awaiting_definition) == (1, 2, 1)
    assert (counts.timers_pending, counts.timer_overdue) == (2, 0.0)
    assert counts.outbox_oldest_age > 0
