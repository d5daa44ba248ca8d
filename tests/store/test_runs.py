from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from saga_engine.decider.events import RunStarted
from saga_engine.decider.evolve import replay
from saga_engine.decider.triggers import MalformedReply, ReplyReceived
from saga_engine.protocol.run_result import result_of_run
from saga_engine.store.batch_append import RunAppend
from saga_engine.store.database import Database
from saga_engine.store.event_data import deserialize_event
from saga_engine.store.journal import NewJournalRow
from saga_engine.store.sql_store import SqlStoreTransaction
from saga_engine.vocabulary import Direction, Outcome
from tests.kit.stored_runs import (
    CHARGED,
    DECLINED,
    RESERVED,
    append_run,
    apply_trigger,
    decide_start,
    insert_run,
    make_due,
    run_append,
    run_id,
)
from tests.kit.stores import RequesterStore, RequesterTransaction, read_events

RELEASED = ReplyReceived(
    step="reserve", direction=Direction.COMPENSATION, attempt=1, outcome=Outcome.SUCCEEDED, body={}
)
MALFORMED = MalformedReply(step="charge", direction=Direction.ACTION, attempt=1, problem="not JSON")


@pytest.mark.parametrize("snapshot_at", [None, 0, 1], ids=lambda each: f"snapshot-{each}")
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
    store: RequesterStore, definition_id: int, story, snapshot_at
):
    async with store.transaction() as tx:
        run = await insert_run(tx, definition_id, key="k")
        for place, trigger in enumerate(story):
            with_snapshot = place == snapshot_at
            decision = await apply_trigger(tx, run.run_id, trigger, with_snapshot=with_snapshot)
            assert decision.run is not None
            run = decision.run
    async with store.transaction() as tx:
        stored = (await tx.read_runs([run.run_id]))[run.run_id]
        events = [deserialize_event(e.type, e.data) for e in await read_events(tx, run.run_id)]
        status = (await tx.read_statuses([run.run_id]))[run.run_id]
    assert stored.run == replay(events) == run
    assert stored.revision == len(story) + 1
    has_snapshot = snapshot_at is not None and snapshot_at < len(story)
    assert stored.snapshot_revision == (snapshot_at + 2 if has_snapshot else 0)
    assert status == result_of_run(run)


async def test_runs_that_do_not_exist_are_left_out(store: RequesterStore, definition_id: int):
    async with store.transaction() as tx:
        run = await insert_run(tx, definition_id)
        assert set(await tx.read_runs([run_id(), run.run_id])) == {run.run_id}
        assert await tx.read_runs([]) == {}
        assert await tx.read_statuses([]) == {}
        assert await tx.locked_runs([]) == set()


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
        now = await tx.database_now()
        decision = decide_start(now)
        assert decision.run is not None
        started, *others = decision.events
        assert isinstance(started, RunStarted)
        run = replace(decision.run, deadline=moment)
        decision = replace(decision, run=run, events=(replace(started, deadline=moment), *others))
        append = run_append(decision, definition_id=definition_id, recorded_at=now)
        stored = replace(append.stored_run, run=run, wake_at=moment)
        await append_run(tx, replace(append, stored_run=stored))
        found = (await tx.read_runs([run.run_id]))[run.run_id]
        assert (found.run.deadline, found.wake_at) == (moment, moment)
        is_due = moment <= await tx.database_now()
        assert await tx.due_run_ids([definition_id], 10) == ([run.run_id] if is_due else [])


async def append_at(
    tx: RequesterTransaction, run: str, wake_at: datetime | None, *, wakes: bool = False
) -> None:
    """Append a row without events to a run, which needs a timer at that time now."""
    stored = (await tx.read_runs([run]))[run]
    row = NewJournalRow(
        run_id=run,
        revision=stored.revision + 1,
        recorded_at=await tx.database_now(),
        decisions=(),
    )
    after = replace(stored, revision=row.revision, wake_at=wake_at)
    await append_run(tx, RunAppend(stored_run=after, journal_row=row, wakes=wakes))


async def test_wake_at_moves_only_to_an_earlier_time(store: RequesterStore, definition_id: int):
    async with store.transaction() as tx:
        run = (await insert_run(tx, definition_id)).run_id
        first = await wake(tx, run)
        assert first is not None
        await append_at(tx, run, first + timedelta(hours=1))
        assert await wake(tx, run) == first
        await append_at(tx, run, first - timedelta(seconds=10))
        assert await wake(tx, run) == first - timedelta(seconds=10)


async def test_wake_at_moves_to_a_later_time_when_the_timers_were_processed(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        run = (await insert_run(tx, definition_id)).run_id
        first = await wake(tx, run)
        assert first is not None
        later = first + timedelta(hours=1)
        await append_at(tx, run, later, wakes=True)
        assert await wake(tx, run) == later
        await append_at(tx, run, None, wakes=True)
        assert await wake(tx, run) is None


async def test_wake_at_that_has_passed_moves_to_the_next_time(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        run = (await insert_run(tx, definition_id)).run_id
        first = await wake(tx, run)
        await make_due(tx, run)
        await append_at(tx, run, first)
        assert await wake(tx, run) == first
        await make_due(tx, run)
        await append_at(tx, run, None)
        assert await wake(tx, run) is None


async def test_a_finished_run_has_no_timer(store: RequesterStore, definition_id: int):
    async with store.transaction() as tx:
        run = await insert_run(tx, definition_id)
        await apply_trigger(tx, run.run_id, RESERVED)
        await apply_trigger(tx, run.run_id, CHARGED)
        assert await wake(tx, run.run_id) is None


async def wake(tx: RequesterTransaction, run: str):
    return (await tx.read_runs([run]))[run].wake_at


@pytest.mark.parametrize(
    ("snapshot_at", "lost_revision", "is_readable"),
    [(None, 1, False), (None, 2, False), (0, 1, True), (0, 2, False), (1, 2, True), (1, 3, False)],
)
async def test_a_run_whose_journal_lacks_a_row_is_not_read(
    database: Database, definition_id: int, snapshot_at, lost_revision, is_readable
):
    async with database.transaction() as tx:
        store_tx = SqlStoreTransaction(tx)
        run = await insert_run(store_tx, definition_id)
        for place, trigger in enumerate((RESERVED, CHARGED)):
            await apply_trigger(store_tx, run.run_id, trigger, with_snapshot=place == snapshot_at)
        lose = text("DELETE FROM saga_engine.journal WHERE revision = :revision")
        await tx.execute(lose, {"revision": lost_revision})
        if is_readable:
            assert (await store_tx.read_runs([run.run_id]))[run.run_id].revision == 3
        else:
            with pytest.raises(ValueError, match="lacks a row"):
                await store_tx.read_runs([run.run_id])
