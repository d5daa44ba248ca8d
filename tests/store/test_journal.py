import asyncio
from dataclasses import replace

import pytest

from saga_engine.decider.decide import decide
from saga_engine.errors import StoreRefused
from saga_engine.store.journal import NewDecision, NewJournalRow, journal_columns
from tests.kit.stored_runs import (
    ORDERS,
    RESERVED,
    decide_start,
    insert_run,
    journal_row,
    run_id,
)
from tests.kit.stores import RequesterStore, RequesterTransaction, read_events


async def started_and_reserved(tx: RequesterTransaction) -> NewJournalRow:
    """The row of two decisions about a new run."""
    now = await tx.database_now()
    start = decide_start(now)
    reserved = decide(ORDERS, start.run, RESERVED, now)
    return journal_row(start, reserved, recorded_at=now)


async def test_the_decisions_of_a_transaction_are_one_row_of_the_run(store: RequesterStore):
    async with store.transaction() as tx:
        row = await started_and_reserved(tx)
        await tx.append_to_journal([row])
        await tx.append_to_journal([])
        found = await read_events(tx, row.run_id)
        assert await read_events(tx, run_id()) == []
    assert [(event.revision, event.type) for event in found] == [
        (1, "run_started"),
        (1, "attempt_started"),
        (1, "step_succeeded"),
        (1, "attempt_started"),
    ]
    assert {event.recorded_at for event in found} == {row.recorded_at}


async def test_an_event_has_the_metadata_of_its_own_decision(store: RequesterStore):
    async with store.transaction() as tx:
        row = await started_and_reserved(tx)
        known, unknown = row.decisions[0], NewDecision(row.decisions[1].events, {})
        await tx.append_to_journal([replace(row, decisions=[known, unknown])])
        found = await read_events(tx, row.run_id)
    assert [event.metadata for event in found] == [{"causation_id": "m-1"}] * 2 + [{}] * 2


async def test_the_metadata_of_a_decision_is_written_once(store: RequesterStore):
    async with store.transaction() as tx:
        row = await started_and_reserved(tx)
    [written] = journal_columns([row])["events"]
    assert (written.count('"type"'), written.count('"metadata"')) == (4, 2)


async def test_each_event_of_concurrent_transactions_has_its_own_position(store: RequesterStore):
    async def append_rows() -> list[int]:
        positions = []
        for _ in range(10):
            async with store.transaction() as tx:
                rows = [await started_and_reserved(tx) for _ in range(3)]
                await tx.append_to_journal(rows)
                found = [await read_events(tx, row.run_id) for row in rows]
            positions += [event.position for events in found for event in events]
        return positions

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(append_rows()) for _ in range(4)]
    found = [task.result() for task in tasks]
    assert all(positions == sorted(positions) for positions in found)
    assert len({position for positions in found for position in positions}) == 4 * 10 * 3 * 4


async def test_a_revision_is_appended_once(store: RequesterStore, definition_id: int):
    async with store.transaction() as tx:
        await insert_run(tx, definition_id)
        now = await tx.database_now()
        again = [journal_row(decide_start(now), recorded_at=now)]
        await tx.append_to_journal(again)
    with pytest.raises(StoreRefused, match="23505"):
        async with store.transaction() as tx:
            await tx.append_to_journal(again)
