from dataclasses import replace
from typing import Any

from saga_engine.decider.triggers import MalformedReply
from saga_engine.store import (
    audit,
    business_keys,
    run_queries,
)
from saga_engine.store.audit import ActionKind, OperatorAction
from saga_engine.store.business_keys import KeyRequest
from saga_engine.store.database import Database
from saga_engine.store.sql_store import SqlStoreTransaction
from saga_engine.vocabulary import Direction, Failure, Status
from tests.kit.stored_runs import (
    CHARGED,
    DECLINED,
    INPUT,
    RESERVED,
    apply_trigger,
    insert_run,
    run_id,
)

DECLINED_BRIEFLY = replace(DECLINED, failure=Failure("declined"))


async def test_runs_are_listed_in_pages_and_by_filter(database: Database, definition_id: int):
    async with database.transaction() as tx:
        ids = sorted(
            [(await insert_run(SqlStoreTransaction(tx), definition_id)).run_id for _ in range(4)],
            reverse=True,
        )
        for trigger in (RESERVED, CHARGED):
            await apply_trigger(SqlStoreTransaction(tx), ids[0], trigger)
        for trigger in (RESERVED, DECLINED_BRIEFLY):
            await apply_trigger(SqlStoreTransaction(tx), ids[1], trigger)
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


async def test_the_detail_of_a_run_has_everything_that_is_stored(
    database: Database, definition_id: int
):
    async with database.transaction() as tx:
        run = await insert_run(SqlStoreTransaction(tx), definition_id)
        await apply_trigger(SqlStoreTransaction(tx), run.run_id, RESERVED)
        decision = await apply_trigger(
            SqlStoreTransaction(tx),
            run.run_id,
            MalformedReply(
                step="charge", direction=Direction.ACTION, attempt=1, problem="not JSON"
            ),
        )
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
    assert [event.revision for event in shown.journal] == [1, 1, 2, 2, 3]
    assert len(shown.incidents) == decision.run.incident_count
    assert [each.action for each in shown.audit] == ["cancel"]
