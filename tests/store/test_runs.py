import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from saga_engine.decider.evolve import replay
from saga_engine.decider.run import Run
from saga_engine.decider.triggers import MalformedReply, ReplyReceived
from saga_engine.errors import StoreUnavailable
from saga_engine.store.event_data import deserialize_event
from saga_engine.vocabulary import Direction, Outcome
from tests.kit.stored_runs import (
    CHARGED,
    DECLINED,
    RESERVED,
    apply_trigger,
    decide_start,
    insert_run,
    make_due,
    run_id,
    stored_run,
)
from tests.kit.stores import RequesterStore, RequesterTransaction, read_events

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
    store: RequesterStore, definition_id: int, story
):
    async with store.transaction() as tx:
        run = await insert_run(tx, definition_id, key="k")
        for trigger in story:
            after = (await apply_trigger(tx, run.run_id, trigger)).run
            assert after is not None
            run = after
    async with store.transaction() as tx:
        row = (await tx.read_runs([run.run_id]))[run.run_id].run
        events = [deserialize_event(e.type, e.data) for e in await read_events(tx, run.run_id)]
    assert row == replay(events) == run


async def test_two_transactions_with_the_same_runs_wait_for_each_other(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        ids = [(await insert_run(tx, definition_id)).run_id for _ in range(50)]

    async def hold(wanted: list[str]) -> None:
        for _ in range(20):
            async with store.transaction() as tx:
                assert len(await tx.lock_runs(wanted)) == 50

    async with asyncio.TaskGroup() as group:  # a deadlock would raise StoreUnavailable
        group.create_task(hold(ids))
        group.create_task(hold(ids[::-1]))


async def test_runs_that_do_not_exist_are_left_out(store: RequesterStore, definition_id: int):
    async with store.transaction() as tx:
        run = await insert_run(tx, definition_id)
        assert set(await tx.lock_runs([run_id(), run.run_id])) == {run.run_id}
        assert await tx.lock_runs([]) == {}
        assert await tx.read_statuses([]) == {}
        assert await tx.read_runs([]) == {}
        assert await tx.insert_runs([]) == set()


def started_run(now: datetime) -> Run:
    run = decide_start(now).run
    assert run is not None
    return run


async def test_a_run_is_inserted_once(store: RequesterStore, definition_id: int):
    async with store.transaction() as tx:
        now = await tx.database_now()
        old, new = (stored_run(started_run(now), definition_id) for _ in range(2))
        assert await tx.insert_runs([old]) == {old.run.run_id}
        assert await tx.insert_runs([new, old]) == {new.run.run_id}


@pytest.mark.parametrize("offset", [-1, 1], ids=["older", "newer"])
async def test_a_run_is_saved_only_at_the_revision_that_was_decided_on(
    store: RequesterStore, definition_id: int, offset: int
):
    async with store.transaction() as tx:
        run = await insert_run(tx, definition_id)
        newer = (await apply_trigger(tx, run.run_id, RESERVED)).run
        stored = (await tx.read_runs([run.run_id]))[run.run_id]
    assert (stored.run, stored.revision) == (newer, 2)
    other = stored_run(run, definition_id, stored.revision + offset)
    for appended in ([], [run.run_id]):
        with pytest.raises(StoreUnavailable, match="changed by another"):
            async with store.transaction() as tx:
                await tx.save_runs([other], appended=appended)
    async with store.transaction() as tx:
        assert (await tx.read_runs([run.run_id]))[run.run_id] == stored


async def test_a_run_gets_the_next_revision_only_with_a_row_of_its_journal(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        ids = [(await insert_run(tx, definition_id)).run_id for _ in range(2)]
        found = await tx.lock_runs(ids)
        await tx.save_runs(list(found.values()), appended=[ids[0]])
        after = await tx.read_runs(ids)
    assert [found[each].revision for each in ids] == [1, 1]
    assert [after[each].revision for each in ids] == [2, 1]


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
    store: RequesterStore, definition_id: int, moment: datetime
):
    async with store.transaction() as tx:
        decision = decide_start(await tx.database_now())
        assert decision.run is not None
        run = replace(decision.run, deadline=moment)
        await tx.insert_runs([replace(stored_run(run, definition_id), wake_at=moment)])
        found = (await tx.read_runs([run.run_id]))[run.run_id]
        assert (found.run.deadline, found.wake_at) == (moment, moment)
        is_due = moment <= await tx.database_now()
        assert set(await tx.lock_due_runs([definition_id], 10)) == (
            {run.run_id} if is_due else set()
        )


async def test_wake_at_moves_only_to_an_earlier_time(store: RequesterStore, definition_id: int):
    async with store.transaction() as tx:
        run = await insert_run(tx, definition_id)
        before = (await tx.lock_runs([run.run_id]))[run.run_id]
        assert before.wake_at is not None
        later = replace(before, wake_at=before.wake_at + timedelta(hours=1))
        await tx.save_runs([later])
        assert await wake(tx, run.run_id) == before.wake_at
        earlier = replace(before, wake_at=before.wake_at - timedelta(seconds=10))
        await tx.save_runs([earlier])
        assert await wake(tx, run.run_id) == earlier.wake_at


async def test_wake_at_that_has_passed_moves_to_the_next_time(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        run = await insert_run(tx, definition_id)
        before = (await tx.lock_runs([run.run_id]))[run.run_id]
        await make_due(tx, run.run_id)
        await tx.save_runs([before])
        assert await wake(tx, run.run_id) == before.wake_at
        await make_due(tx, run.run_id)
        await tx.save_runs([replace(before, wake_at=None)])
        assert await wake(tx, run.run_id) is None


async def test_a_finished_run_has_no_timer(store: RequesterStore, definition_id: int):
    async with store.transaction() as tx:
        run = await insert_run(tx, definition_id)
        await apply_trigger(tx, run.run_id, RESERVED)
        await apply_trigger(tx, run.run_id, CHARGED)
        assert await wake(tx, run.run_id) is None


async def wake(tx: RequesterTransaction, run: str):
    return (await tx.read_runs([run]))[run].wake_at
