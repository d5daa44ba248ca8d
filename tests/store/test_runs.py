import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from saga_engine.decider.events import deserialize_event
from saga_engine.decider.evolve import replay
from saga_engine.decider.run import Run
from saga_engine.decider.triggers import MalformedReply, ReplyReceived
from saga_engine.errors import StoreUnavailable
from saga_engine.store import due_runs, journal, run_statuses, runs
from saga_engine.store.database import Database, SqlAlchemyTransaction
from saga_engine.store.run_statuses import RunStatus
from saga_engine.store.runs import StoredRun
from saga_engine.vocabulary import Direction, Failure, Outcome, Status
from tests.kit.stored_runs import (
    BOTH_DATABASES,
    apply_trigger,
    decide_start,
    insert_run,
    make_due,
    run_id,
    stored_run,
)

pytestmark = BOTH_DATABASES

RESERVED = ReplyReceived(
    step="reserve",
    direction=Direction.ACTION,
    attempt=1,
    outcome=Outcome.SUCCEEDED,
    body={"id": "r-1", "n": 1.5},
)
CHARGED = ReplyReceived(
    step="charge",
    direction=Direction.ACTION,
    attempt=1,
    outcome=Outcome.SUCCEEDED,
    body={"id": "c-1"},
)
DECLINED = ReplyReceived(
    step="charge",
    direction=Direction.ACTION,
    attempt=1,
    outcome=Outcome.REJECTED,
    body=None,
    failure=Failure("declined", "é", {"a": [1]}),
)
RELEASED = ReplyReceived(
    step="reserve", direction=Direction.COMPENSATION, attempt=1, outcome=Outcome.SUCCEEDED, body={}
)
MALFORMED = MalformedReply(step="charge", direction=Direction.ACTION, attempt=1, problem="not JSON")


@pytest.mark.parametrize(
    "story",
    [
        (),
        (RESERVED,),
        (RESERVED, CHARGED),
        (RESERVED, DECLINED),
        (RESERVED, DECLINED, RELEASED),
        (RESERVED, MALFORMED),
    ],
    ids=["started", "stepped", "completed", "compensating", "compensated", "malformed"],
)
async def test_folding_the_journal_gives_the_stored_run(
    database: Database, definition_id: int, story
):
    async with database.transaction() as tx:
        run = await insert_run(tx, definition_id, key="k")
        for trigger in story:
            after = (await apply_trigger(tx, run.run_id, trigger)).run
            assert after is not None
            run = after
    async with database.transaction() as tx:
        row = (await runs.read_unlocked(tx, [run.run_id]))[run.run_id].run
        events = [deserialize_event(e.type, e.data) for e in await journal.read(tx, run.run_id)]
    assert row == replay(events) == run


async def test_two_transactions_with_the_same_runs_wait_for_each_other(
    database: Database, definition_id: int
):
    async with database.transaction() as tx:
        ids = [(await insert_run(tx, definition_id)).run_id for _ in range(50)]

    async def hold(wanted: list[str]) -> None:
        for _ in range(20):
            async with database.transaction() as tx:
                assert len(await runs.lock(tx, wanted)) == 50

    async with asyncio.TaskGroup() as group:  # a deadlock would raise StoreUnavailable
        group.create_task(hold(ids))
        group.create_task(hold(ids[::-1]))


async def test_runs_that_do_not_exist_are_left_out(database: Database, definition_id: int):
    async with database.transaction() as tx:
        run = await insert_run(tx, definition_id)
        assert set(await runs.lock(tx, [run_id(), run.run_id])) == {run.run_id}
        assert await runs.lock(tx, []) == {}
        assert await run_statuses.read(tx, []) == {}
        assert await runs.read_unlocked(tx, []) == {}
        assert await runs.insert(tx, []) == set()


def started_run(now: datetime) -> Run:
    run = decide_start(now).run
    assert run is not None
    return run


async def test_a_run_is_inserted_once(database: Database, definition_id: int):
    async with database.transaction() as tx:
        now = await runs.database_now(tx)
        old, new = (stored_run(started_run(now), definition_id) for _ in range(2))
        assert await runs.insert(tx, [old]) == {old.run.run_id}
        assert await runs.insert(tx, [new, old]) == {new.run.run_id}


async def test_a_run_is_not_overwritten_with_an_older_revision(
    database: Database, definition_id: int
):
    async with database.transaction() as tx:
        run = await insert_run(tx, definition_id)
        newer = (await apply_trigger(tx, run.run_id, RESERVED)).run
    with pytest.raises(StoreUnavailable, match="changed by another"):
        async with database.transaction() as tx:
            await runs.save(tx, [stored_run(run, definition_id)])
    async with database.transaction() as tx:
        assert (await runs.read_unlocked(tx, [run.run_id]))[run.run_id].run == newer


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 3, 29, 1, tzinfo=UTC),
        datetime(2028, 2, 29, 23, 59, 59, 999_999, UTC),
        datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
    ],
    ids=str,
)
async def test_a_time_is_stored_to_the_microsecond(
    database: Database, definition_id: int, moment: datetime
):
    async with database.transaction() as tx:
        decision = decide_start(await runs.database_now(tx))
        assert decision.run is not None
        run = replace(decision.run, deadline=moment)
        await runs.insert(tx, [StoredRun(run, definition_id, moment)])
        found = (await runs.read_unlocked(tx, [run.run_id]))[run.run_id]
        assert (found.run.deadline, found.wake_at) == (moment, moment)
        is_due = moment <= await runs.database_now(tx)
        assert set(await due_runs.lock_due(tx, [definition_id], 10)) == (
            {run.run_id} if is_due else set()
        )


async def test_wake_at_moves_only_to_an_earlier_time(database: Database, definition_id: int):
    async with database.transaction() as tx:
        run = await insert_run(tx, definition_id)
        before = (await runs.lock(tx, [run.run_id]))[run.run_id]
        assert before.wake_at is not None
        later = replace(before, wake_at=before.wake_at + timedelta(hours=1))
        await runs.save(tx, [later])
        assert await wake(tx, run.run_id) == before.wake_at
        earlier = replace(before, wake_at=before.wake_at - timedelta(seconds=10))
        await runs.save(tx, [earlier])
        assert await wake(tx, run.run_id) == earlier.wake_at


async def test_wake_at_that_has_passed_moves_to_the_next_time(
    database: Database, definition_id: int
):
    async with database.transaction() as tx:
        run = await insert_run(tx, definition_id)
        before = (await runs.lock(tx, [run.run_id]))[run.run_id]
        await make_due(tx, run.run_id)
        await runs.save(tx, [before])
        assert await wake(tx, run.run_id) == before.wake_at
        await make_due(tx, run.run_id)
        await runs.save(tx, [replace(before, wake_at=None)])
        assert await wake(tx, run.run_id) is None


async def test_a_finished_run_has_no_timer(database: Database, definition_id: int):
    async with database.transaction() as tx:
        run = await insert_run(tx, definition_id)
        await apply_trigger(tx, run.run_id, RESERVED)
        await apply_trigger(tx, run.run_id, CHARGED)
        assert await wake(tx, run.run_id) is None


async def test_a_status_says_why_a_run_did_not_complete(database: Database, definition_id: int):
    async with database.transaction() as tx:
        good, bad = [(await insert_run(tx, definition_id)).run_id for _ in range(2)]
        for trigger in (RESERVED, CHARGED):
            await apply_trigger(tx, good, trigger)
        for trigger in (RESERVED, DECLINED):
            await apply_trigger(tx, bad, trigger)
        assert await run_statuses.read(tx, [good, bad, run_id()]) == {
            good: RunStatus(
                status=Status.COMPLETED,
                saga="place-order",
                version=1,
                key=None,
                result={"charge": {"id": "c-1"}, "reserve": {"id": "r-1", "n": 1.5}},
            ),
            bad: RunStatus(
                status=Status.COMPENSATING,
                saga="place-order",
                version=1,
                key=None,
                failure=Failure("declined", "é", {"a": [1]}),
            ),
        }


async def wake(tx: SqlAlchemyTransaction, run: str):
    return (await runs.read_unlocked(tx, [run]))[run].wake_at
