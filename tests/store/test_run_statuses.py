"""The statuses of runs, as clients get them."""

from uuid import UUID

from saga_engine.protocol.run_result import RunResult
from saga_engine.vocabulary import Failure, Status
from tests.kit.stored_runs import (
    CHARGED,
    DECLINED,
    RESERVED,
    apply_trigger,
    insert_run,
    run_id,
)
from tests.kit.stores import RequesterStore


async def test_a_status_says_why_a_run_did_not_complete(store: RequesterStore, definition_id: int):
    async with store.transaction() as tx:
        good, bad = [(await insert_run(tx, definition_id)).run_id for _ in range(2)]
        for trigger in (RESERVED, CHARGED):
            await apply_trigger(tx, good, trigger)
        for trigger in (RESERVED, DECLINED):
            await apply_trigger(tx, bad, trigger)
        assert await tx.read_statuses([good, bad, run_id()]) == {
            good: RunResult(
                run_id=UUID(good),
                status=Status.COMPLETED,
                saga="place-order",
                version=1,
                key=None,
                result={"charge": {"id": "c-1"}, "reserve": {"id": "r-1", "n": 1.5}},
            ),
            bad: RunResult(
                run_id=UUID(bad),
                status=Status.COMPENSATING,
                saga="place-order",
                version=1,
                key=None,
                error=Failure("declined", "é", {"a": [1]}),
            ),
        }
