import asyncio
from datetime import UTC, datetime

from sqlalchemy import text

from saga_engine.saga.trigger import Replied
from saga_engine.saga.vocabulary import Direction, Outcome
from saga_engine.store import inbox, journal, keys, partitions, reading
from saga_engine.store.database import Database, Transaction
from saga_engine.store.inbox import Item
from saga_engine.store.keys import KeyWanted
from tests.store.orders import INPUT, begin, happen

PAST = datetime(2020, 1, 31, 23, 59, 59, tzinfo=UTC)
RESERVED = Replied("reserve", Direction.ACTION, 1, Outcome.SUCCEEDED, {})
CHARGED = Replied("charge", Direction.ACTION, 1, Outcome.SUCCEEDED, {})


async def test_the_coming_months_are_there_and_made_once(database: Database):
    made = await partitions.maintain(database, retention_days=0, months_ahead=5)
    again = await partitions.maintain(database, retention_days=0, months_ahead=5)
    assert (made.made, again.made) == (2 * 3, 0)


async def test_workers_that_make_a_month_at_once_make_it_once(
    database: Database, definition_id: int
):
    async with database.transaction() as tx:
        run = await begin(tx, definition_id, at=PAST)

    async def make() -> None:
        async with database.transaction() as tx:
            await month(tx)

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(make())
    async with database.transaction() as tx:
        assert await homes(tx, run.run_id) == {"run_2020_01", "event_2020_01"}


async def test_a_run_and_its_events_are_in_the_partition_of_their_month(
    database: Database, definition_id: int
):
    async with database.transaction() as tx:
        await month(tx)
        run = await begin(tx, definition_id, at=PAST)
        assert await homes(tx, run.run_id) == {"run_2020_01", "event_2020_01"}


async def test_runs_that_came_before_their_partition_move_into_it(
    database: Database, definition_id: int
):
    async with database.transaction() as tx:
        run = await begin(tx, definition_id, at=PAST)
        assert await homes(tx, run.run_id) == {"run_default", "event_default"}
        events = await journal.read(tx, run.run_id)
        await month(tx)
        assert await homes(tx, run.run_id) == {"run_2020_01", "event_2020_01"}
        assert await journal.read(tx, run.run_id) == events


async def test_a_month_whose_runs_are_all_finished_long_ago_is_dropped(
    database: Database, definition_id: int
):
    run_id = await finished(database, definition_id)
    async with database.transaction() as tx:
        await inbox.record(tx, [Item("cancel", run_id, {})])
    done = await partitions.maintain(database, retention_days=30)
    assert done.dropped == ("2020_01",)
    async with database.transaction() as tx:
        assert await reading.find(tx, run_id) is None
        assert await journal.read(tx, run_id) == []
        assert await reading.with_key(tx, "place-order", "k") is None
        assert (await reading.counts(tx)).inbox == 0


async def test_a_month_with_an_unfinished_run_stays(database: Database, definition_id: int):
    old = await finished(database, definition_id)
    async with database.transaction() as tx:
        await begin(tx, definition_id, at=PAST)
    assert (await partitions.maintain(database, retention_days=30)).dropped == ()
    async with database.transaction() as tx:
        assert await reading.find(tx, old) is not None
        assert await reading.with_key(tx, "place-order", "k") == old


async def test_a_month_with_a_run_that_finished_lately_stays(
    database: Database, definition_id: int
):
    await finished(database, definition_id, days=29)
    assert (await partitions.maintain(database, retention_days=30)).dropped == ()
    assert (await partitions.maintain(database, retention_days=28)).dropped == ("2020_01",)


async def test_without_a_retention_nothing_is_dropped(database: Database, definition_id: int):
    await finished(database, definition_id)
    assert (await partitions.maintain(database, retention_days=0)).dropped == ()


async def finished(database: Database, definition_id: int, days: int = 365) -> str:
    async with database.transaction() as tx:
        await month(tx)
        run_id = (await begin(tx, definition_id, key="k", at=PAST)).run_id
        await keys.try_reserve(tx, [KeyWanted("place-order", "k", run_id, INPUT)])
        for trigger in (RESERVED, CHARGED):
            await happen(tx, run_id, trigger)
        await tx.execute(
            text(
                "UPDATE saga_engine.run SET finished_at = clock_timestamp()"
                " - make_interval(days => CAST(:days AS integer))"
            ),
            {"days": days},
        )
    return run_id


async def month(tx: Transaction) -> None:
    for parent in ("run", "event"):
        add = text("SELECT saga_engine.add_month(CAST(:parent AS text), timestamp '2020-01-01')")
        await tx.execute(add, {"parent": parent})


async def homes(tx: Transaction, run_id: str) -> set[str]:
    where = text(
        "SELECT tableoid::regclass::text FROM saga_engine.run WHERE run_id = CAST(:id AS uuid)"
        " UNION SELECT tableoid::regclass::text FROM saga_engine.event"
        " WHERE run_id = CAST(:id AS uuid)"
    )
    found = (await tx.execute(where, {"id": run_id})).scalars()
    return {name.rpartition(".")[2] for name in found}
