from saga_engine.saga.event import IncidentOpened, IncidentResolved, RunAbandoned, RunCompensated
from saga_engine.saga.vocabulary import Direction, Resolution
from saga_engine.store import incidents, runs
from saga_engine.store.database import Database
from saga_engine.store.incidents import Choice
from tests.store.orders import begin


async def opened(tx, run_id: str, *numbers: int) -> list:
    now = await runs.clock(tx)
    return [
        (run_id, IncidentOpened(n, "reserve", Direction.COMPENSATION, "exhausted", "é", now))
        for n in numbers
    ]


async def test_an_open_incident_is_listed_with_its_run(database: Database, definition_id: int):
    async with database.transaction() as tx:
        run = await begin(tx, definition_id, key="k")
        await incidents.record(tx, await opened(tx, run.run_id, 1))
        [found] = await incidents.listing(tx, Choice(saga="place-order"), limit=9)
        assert await incidents.listing(tx, Choice(saga="returns"), limit=9) == []
    assert (found.run_id, found.key, found.saga, found.version) == (
        *(run.run_id, "k", "place-order", 1),
    )
    assert (found.number, found.direction, found.cause, found.message) == (
        *(1, Direction.COMPENSATION, "exhausted", "é"),
    )
    assert found.resolved_at is None


async def test_a_resolved_incident_is_listed_only_with_its_run(
    database: Database, definition_id: int
):
    async with database.transaction() as tx:
        run = await begin(tx, definition_id)
        resolved = IncidentResolved(1, Resolution.RETRY, "ada", "fixed")
        await incidents.record(tx, [*await opened(tx, run.run_id, 1, 2), (run.run_id, resolved)])
        assert [each.number for each in await incidents.listing(tx, limit=9)] == [2]
        first, _ = await incidents.listing(tx, run_id=run.run_id, limit=9)
    assert (first.resolution, first.by, first.reason) == (Resolution.RETRY, "ada", "fixed")
    assert first.resolved_at is not None


async def test_abandoning_a_run_resolves_all_its_incidents_and_no_others(
    database: Database, definition_id: int
):
    async with database.transaction() as tx:
        run, other = [await begin(tx, definition_id) for _ in range(2)]
        now = await runs.clock(tx)
        await incidents.record(tx, await opened(tx, run.run_id, 1, 2))
        await incidents.record(tx, await opened(tx, other.run_id, 1))
        events = [
            IncidentResolved(1, Resolution.ABANDON, "ada", "this one"),
            RunAbandoned(now, "ada", "the rest"),
        ]
        await incidents.record(tx, [(run.run_id, event) for event in events])
        assert [each.run_id for each in await incidents.listing(tx, limit=9)] == [other.run_id]
        closed = await incidents.listing(tx, run_id=run.run_id, limit=9)
    assert [each.reason for each in closed] == ["this one", "the rest"]
    assert {each.resolution for each in closed} == {Resolution.ABANDON}


async def test_other_events_are_passed_over(database: Database, definition_id: int):
    async with database.transaction() as tx:
        run = await begin(tx, definition_id)
        await incidents.record(tx, [(run.run_id, RunCompensated(await runs.clock(tx)))])
        assert await incidents.listing(tx, limit=9) == []
