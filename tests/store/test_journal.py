import pytest
from sqlalchemy import text

from saga_engine.errors import StoreRefused
from saga_engine.store import journal, runs
from saga_engine.store.database import Database
from tests.kit.stored_runs import decide_start, insert_run, journal_entries, run_id
from tests.kit.stores import RequesterStore, read_events


async def test_events_are_read_unchanged(store: RequesterStore):
    async with store.transaction() as tx:
        now = await tx.database_now()
        decision = decide_start(now)
        await tx.append_events(journal_entries(decision, now))
        await tx.append_events([])
        assert decision.run is not None
        found = await read_events(tx, decision.run.run_id)
        assert await read_events(tx, run_id()) == []
    assert [event.revision for event in found] == [1, 2]
    assert [event.type for event in found] == ["run_started", "attempt_started"]
    assert {event.recorded_at for event in found} == {now}
    assert found[0].metadata == {"message_id": "m"}
    assert found[0].position < found[1].position


async def test_a_revision_is_appended_once(store: RequesterStore, definition_id: int):
    async with store.transaction() as tx:
        await insert_run(tx, definition_id)
        now = await tx.database_now()
        again = journal_entries(decide_start(now), now)
        await tx.append_events(again)
    with pytest.raises(StoreRefused, match="23505"):
        async with store.transaction() as tx:
            await tx.append_events(again)


async def test_an_event_has_the_id_of_its_transaction(database: Database):
    ours = text(
        "SELECT count(*) FROM saga_engine.event WHERE transaction_id = pg_current_xact_id()"
    )
    async with database.transaction() as tx:
        now = await runs.database_now(tx)
        await journal.append(tx, journal_entries(decide_start(now), now))
        assert (await tx.execute(ours)).scalar_one() == 2
    async with database.transaction() as tx:
        assert (await tx.execute(ours)).scalar_one() == 0
