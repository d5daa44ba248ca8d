"""A projector process: its readiness and its shutdown."""

from typing import Any

import pytest

from saga_engine.errors import ConfigurationError, SchemaMismatch
from saga_engine.events.service import ProjectorService
from saga_engine.settings import Settings
from saga_engine.telemetry.events import (
    EventLoopLagMeasured,
    ProcessReady,
    ProcessStopped,
    ProcessStopping,
    ProjectionBatchApplied,
    ProjectionsMeasured,
    ProjectionsRegistered,
)
from saga_engine.vocabulary import Program
from tests.kit.event_database import connected
from tests.kit.events import EventRecorder
from tests.kit.programs import wait_until_true
from tests.kit.projections import (
    append_one,
    append_orders,
    check_read_model,
    placed,
    projection_database,
    stored,
    wait_for_position,
)
from tests.kit.projector_service import running_service
from tests.kit.read_model import orders_projection


@pytest.fixture
async def database(event_url):
    async with projection_database(event_url) as database:
        yield database


async def test_it_reports_how_late_its_event_loop_is(event_url, database):
    """As a worker does: all projections of the process wait for a function that blocks it."""
    async with running_service(event_url) as (_, emitted):
        await emitted.wait_for(EventLoopLagMeasured)


async def test_it_runs_projections_and_ends_its_leases_when_it_stops(events, event_url, database):
    async with running_service(event_url) as (service, emitted):
        await append_orders(events, 10)
        await wait_for_position(database, "orders", await events.position())
        await emitted.wait_for(ProjectionsMeasured)
        assert await service.readiness() == {
            "database": None,
            "projections": None,
            "shutting_down": None,
        }
    await check_read_model(database, [each async for each in events.read_all()])
    assert (await stored(database, "orders")).owner is None
    assert emitted.matching(ProjectionsRegistered) == [
        ProjectionsRegistered(projections=("orders",))
    ]
    assert sum(each.events for each in emitted.matching(ProjectionBatchApplied)) == len(
        [each async for each in events.read_all()]
    )
    program = Program.PROJECTOR
    for expected in (
        ProcessReady(program=program),
        ProcessStopping(program=program),
        ProcessStopped(program=program, clean=True),
    ):
        assert expected in emitted


async def test_it_is_not_ready_while_a_projection_cannot_move(events, event_url, database):
    limits: dict[str, Any] = {"projection_stall_timeout": 0.2, "database_lock_timeout": 0.1}
    async with running_service(event_url, **limits) as (service, _):
        await wait_for_position(database, "orders", await append_one(events, "order-1", placed()))

        async def is_stalled():
            return (await service.readiness())["projections"] is not None

        async with connected(event_url) as other, other.transaction():
            await other.execute("LOCK TABLE order_by_id IN ACCESS EXCLUSIVE MODE")
            position = await append_one(events, "order-2", placed())
            await wait_until_true(is_stalled, interval=0.05)
        await wait_for_position(database, "orders", position)

        async def has_recovered():
            return not await is_stalled()

        await wait_until_true(has_recovered, interval=0.05)


async def test_a_database_that_is_not_usable_is_reported_when_it_starts(event_server):
    with pytest.raises(ConfigurationError, match="SAGA_ENGINE_DATABASE_URL"):
        ProjectorService([orders_projection()], Settings(), EventRecorder())
    url = await event_server.create_database("without_event_tables")
    service = ProjectorService([orders_projection()], Settings(database_url=url), EventRecorder())
    with pytest.raises(SchemaMismatch, match="saga-engine migrate --events"):
        await service.__aenter__()
