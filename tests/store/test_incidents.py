from contextlib import suppress
from datetime import timedelta

from sqlalchemy import text

from saga_engine.decider.events import (
    Event,
    IncidentOpened,
    IncidentResolved,
    RunAbandoned,
    RunCompensated,
)
from saga_engine.store import incidents, runs
from saga_engine.store.bounded_count import BoundedCount
from saga_engine.store.database import Database
from saga_engine.store.incidents import IncidentFilter
from saga_engine.store.sql_store import SqlStoreTransaction
from saga_engine.vocabulary import Direction, IncidentCause, Resolution
from tests.kit.stored_runs import insert_run


async def opened(tx, run_id: str, *numbers: int) -> list:
    now = await runs.database_now(tx)
    return [
        (
            run_id,
            IncidentOpened(
                number=n,
                step="reserve",
                direction=Direction.COMPENSATION,
                cause=IncidentCause.STEP_FAILED,
                message="é",
                opened_at=now,
            ),
        )
        for n in numbers
    ]


async def test_an_open_incident_is_listed_with_its_run(database: Database, definition_id: int):
    async with database.transaction() as tx:
        run = await insert_run(SqlStoreTransaction(tx), definition_id, key="k")
        await incidents.record(tx, await opened(tx, run.run_id, 1))
        [found] = await incidents.read_page(tx, IncidentFilter(saga="place-order"), limit=9)
        assert await incidents.read_page(tx, IncidentFilter(saga="returns"), limit=9) == []
    assert (found.run_id, found.key, found.saga, found.version) == (
        *(run.run_id, "k", "place-order", 1),
    )
    assert (found.number, found.direction, found.cause, found.message) == (
        *(1, Direction.COMPENSATION, "step_failed", "é"),
    )
    assert found.resolved_at is None


async def test_a_resolved_incident_is_listed_only_with_its_run(
    database: Database, definition_id: int
):
    async with database.transaction() as tx:
        run = await insert_run(SqlStoreTransaction(tx), definition_id)
        resolved = IncidentResolved(1, Resolution.RETRY, "ada", "fixed")
        await incidents.record(tx, [*await opened(tx, run.run_id, 1, 2), (run.run_id, resolved)])
        assert [each.number for each in await incidents.read_page(tx, limit=9)] == [2]
        first, _ = await incidents.read_page(tx, run_id=run.run_id, limit=9)
    assert (first.resolution, first.operator, first.reason) == (Resolution.RETRY, "ada", "fixed")
    assert first.resolved_at is not None


async def test_abandoning_a_run_resolves_all_its_incidents_and_no_others(
    database: Database, definition_id: int
):
    async with database.transaction() as tx:
        run, other = [await insert_run(SqlStoreTransaction(tx), definition_id) for _ in range(2)]
        now = await runs.database_now(tx)
        await incidents.record(tx, await opened(tx, run.run_id, 1, 2))
        await incidents.record(tx, await opened(tx, other.run_id, 1))
        events: list[Event] = [
            IncidentResolved(1, Resolution.ABANDON, "ada", "this one"),
            RunAbandoned(now, "ada", "the rest"),
        ]
        await incidents.record(tx, [(run.run_id, event) for event in events])
        assert [each.run_id for each in await incidents.read_page(tx, limit=9)] == [other.run_id]
        closed = await incidents.read_page(tx, run_id=run.run_id, limit=9)
    assert [each.reason for each in closed] == ["this one", "the rest"]
    assert {each.resolution for each in closed} == {Resolution.ABANDON}


async def test_other_events_are_ignored(database: Database, definition_id: int):
    async with database.transaction() as tx:
        run = await insert_run(SqlStoreTransaction(tx), definition_id)
        await incidents.record(tx, [(run.run_id, RunCompensated(await runs.database_now(tx)))])
        assert await incidents.read_page(tx, limit=9) == []


async def test_incidents_are_listed_in_pages_and_counted_up_to_a_limit(
    database: Database, definition_id: int
):
    async with database.transaction() as tx:
        run = await insert_run(SqlStoreTransaction(tx), definition_id)
        await incidents.record(tx, await opened(tx, run.run_id, 1, 2, 3))
        first = await incidents.read_page(tx, limit=2)
        rest = await incidents.read_page(tx, limit=2, after=first[-1])
        assert [each.number for each in (*first, *rest)] == [1, 2, 3]
        assert await incidents.count(tx, IncidentFilter(), 3) == BoundedCount(3)
        assert await incidents.count(tx, IncidentFilter(), 2) == BoundedCount(2, exact=False)
        assert await incidents.count(
            tx, IncidentFilter(cause=IncidentCause.KEY_CONFLICT), 2
        ) == BoundedCount(0)
        assert await incidents.count(
            tx, IncidentFilter(older_than=timedelta(hours=1)), 2
        ) == BoundedCount(0)
        [group] = await incidents.count_groups(
            tx, IncidentFilter(), ["cause", "step", "saga"], limit=9
        )
    assert (group.count, group.oldest_opened_at) == (3, first[0].opened_at)
    assert group.shared_values == {"cause": "step_failed", "step": "reserve", "saga": "place-order"}
    assert group.example == f"{run.run_id}/1"


async def test_incidents_are_read_without_the_right_to_read_payloads(
    database: Database, definition_id: int
):
    with suppress(Undone):
        async with database.transaction() as tx:
            run = await insert_run(SqlStoreTransaction(tx), definition_id, key="k")
            await incidents.record(tx, await opened(tx, run.run_id, 1))
            for statement in AS_ONE_WHO_SEES_NO_PAYLOAD:
                await tx.execute(text(statement))
            [found] = await incidents.read_page(tx, limit=9)
            assert (found.run_id, found.key) == (run.run_id, "k")
            assert await incidents.find(tx, run.run_id, 1) == found
            assert await incidents.count(tx, IncidentFilter(), 9) == BoundedCount(1)
            assert len(await incidents.count_groups(tx, IncidentFilter(), ["cause"], limit=9)) == 1
            raise Undone


class Undone(Exception):
    """Takes the role away again, with everything else."""


AS_ONE_WHO_SEES_NO_PAYLOAD = (
    "CREATE ROLE sees_no_payload",
    "GRANT USAGE ON SCHEMA saga_engine TO sees_no_payload",
    "GRANT SELECT ON saga_engine.incident, saga_engine.definition TO sees_no_payload",
    "GRANT SELECT (run_id, definition_id, key) ON saga_engine.run TO sees_no_payload",
    "SET LOCAL ROLE sees_no_payload",
)
