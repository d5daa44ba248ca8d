import pytest
from sqlalchemy import text

from saga_engine.errors import StoreRefused
from saga_engine.store import journal, runs
from saga_engine.store.database import Database
from tests.store.orders import BOTH, begin, entries, run_id, started


@BOTH
async def test_events_come_back_as_they_were_appended(database: Database):
    async with database.transaction() as tx:
        now = await runs.clock(tx)
        decision = started(now)
        await journal.append(tx, entries(decision, now))
        await journal.append(tx, [])
        assert decision.run is not None
        found = await journal.read(tx, decision.run.run_id)
        assert await journal.read(tx, run_id()) == []
    assert [event.version for event in found] == [1, 2]
    assert [event.type for event in found] == ["run_started", "attempt_started"]
    assert {event.at for event in found} == {now}
    assert found[0].metadata == {"message_id": "m"}
    assert found[0].position < found[1].position


@BOTH
async def test_a_version_is_appended_once(database: Database, definition_id: int):
    async with database.transaction() as tx:
        await begin(tx, definition_id)
        now = await runs.clock(tx)
        again = entries(started(now), now)
        await journal.append(tx, again)
    with pytest.raises(StoreRefused, match="23505"):
        async with database.transaction() as tx:
            await journal.append(tx, again)


async def test_an_event_carries_its_transaction(database: Database):
    ours = text("SELECT count(*) FROM saga_engine.event WHERE transaction = pg_current_xact_id()")
    async with database.transaction() as tx:
        now = await runs.clock(tx)
        await journal.append(tx, entries(started(now), now))
        assert (await tx.execute(ours)).scalar_one() == 2
    async with database.transaction() as tx:
        assert (await tx.execute(ours)).scalar_one() == 0
