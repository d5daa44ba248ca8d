import asyncio
from dataclasses import replace

from saga_engine.decider.decide import decide
from saga_engine.store.batch_append import BatchAppend, RunAppend
from saga_engine.store.journal import NewDecision, journal_columns
from tests.kit.stored_runs import (
    ORDERS,
    RESERVED,
    append_run,
    decide_start,
    run_append,
    run_id,
)
from tests.kit.stores import RequesterStore, RequesterTransaction, read_events


async def started_and_reserved(tx: RequesterTransaction, definition_id: int) -> RunAppend:
    """What is appended of two decisions about a new run."""
    now = await tx.database_now()
    start = decide_start(now)
    reserved = decide(ORDERS, start.run, RESERVED, now)
    return run_append(start, reserved, definition_id=definition_id, recorded_at=now)


async def test_the_decisions_of_a_transaction_are_one_row_of_the_run(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        run = await started_and_reserved(tx, definition_id)
        row = run.journal_row
        await append_run(tx, run)
        found = await read_events(tx, row.run_id)
        assert await read_events(tx, run_id()) == []
    assert [(event.revision, event.type) for event in found] == [
        (1, "run_started"),
        (1, "attempt_started"),
        (1, "step_succeeded"),
        (1, "attempt_started"),
    ]
    assert {event.recorded_at for event in found} == {row.recorded_at}


async def test_an_event_has_the_metadata_of_its_own_decision(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        run = await started_and_reserved(tx, definition_id)
        row = run.journal_row
        known, unknown = row.decisions[0], NewDecision(row.decisions[1].events, {})
        row = replace(row, decisions=[known, unknown])
        await append_run(tx, replace(run, journal_row=row))
        found = await read_events(tx, row.run_id)
    assert [event.metadata for event in found] == [{"causation_id": "m-1"}] * 2 + [{}] * 2


async def test_the_metadata_of_a_decision_is_written_once(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        row = (await started_and_reserved(tx, definition_id)).journal_row
    [written] = journal_columns([row])["events"]
    assert (written.count('"type"'), written.count('"metadata"')) == (4, 2)


async def test_each_event_of_concurrent_transactions_has_its_own_position(
    store: RequesterStore, definition_id: int
):
    async def append_rows() -> list[int]:
        positions = []
        for _ in range(10):
            async with store.transaction() as tx:
                runs = [await started_and_reserved(tx, definition_id) for _ in range(3)]
                await tx.append_runs(BatchAppend(runs=runs))
                ids = sorted(each.journal_row.run_id for each in runs)
                found = [await read_events(tx, each) for each in ids]
            positions += [event.position for events in found for event in events]
        return positions

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(append_rows()) for _ in range(4)]
    found = [task.result() for task in tasks]
    assert all(positions == sorted(positions) for positions in found)
    assert len({position for positions in found for position in positions}) == 4 * 10 * 3 * 4
