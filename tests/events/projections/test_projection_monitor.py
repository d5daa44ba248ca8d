"""What the monitor of projections measures, and what it reports."""

import pytest

from saga_engine.events import Append
from saga_engine.events.projections.projection_monitor import ProjectionMonitor
from saga_engine.events.projections.projection_table import ProjectionState
from saga_engine.settings import Settings
from saga_engine.telemetry.events import HorizonHeld, ProjectionsMeasured
from saga_engine.telemetry.metric_catalogue import PROJECTION_STATE
from tests.kit.event_database import connected
from tests.kit.events import EventRecorder
from tests.kit.projections import (
    append_one,
    placed,
    projection_database,
    running_projector,
    wait_for_position,
)
from tests.kit.read_model import orders_projection

REGISTER = (
    "INSERT INTO saga_engine.projection (name, version, code_version) VALUES ('orders', 1, 1)"
)
REBUILD = (
    "INSERT INTO saga_engine.projection (name, version, code_version, role)"
    " VALUES ('orders', 2, 1, 'rebuild')"
)
UPDATE = "UPDATE saga_engine.projection SET {} WHERE name = 'orders'"


class Monitored:
    """A monitor of the projection `orders`, which no process runs."""

    def __init__(self, database, url, **settings):
        self.emitted = EventRecorder()
        self.url = url
        # Below the smallest values, so that the second measurement is late enough.
        chosen = {"projection_stall_timeout": 1e-9, "horizon_hold_warning": 1e-9, **settings}
        self._monitor = ProjectionMonitor(
            database,
            [orders_projection()],
            "this",
            Settings().model_copy(update=chosen),
            self.emitted,
        )

    async def measure(self, times=1):
        for _ in range(times):
            await self._monitor.measure()
        return self._monitor.problem

    async def change(self, assignments):
        await self.execute(UPDATE.format(assignments))

    async def execute(self, sql):
        async with connected(self.url) as other:
            await other.execute(sql)


@pytest.fixture
async def database(event_url):
    async with projection_database(event_url) as database:
        yield database


@pytest.fixture
async def monitored(event_url, database):
    async with connected(event_url) as other:
        await other.execute(REGISTER)
    return Monitored(database, event_url)


async def test_a_projection_that_does_not_move_is_a_problem_until_it_moves(events, monitored):
    position = await append_one(events, "order-1", placed(), placed())
    assert await monitored.measure() is None
    problem = await monitored.measure()
    assert "projection orders has been at position 0 for" in problem
    assert f"there are events up to {position}" in problem
    await monitored.change("position = 1")
    assert await monitored.measure() is None
    assert await monitored.measure() is not None
    await monitored.change(f"position = {position}")
    assert await monitored.measure(2) is None


async def test_a_projection_whose_row_was_deleted_is_a_problem(monitored):
    """No process runs it any more."""
    await monitored.execute("DELETE FROM saga_engine.projection")
    problem = await monitored.measure()
    assert "projection orders is no longer in the database" in problem
    await monitored.execute(REGISTER)
    assert await monitored.measure() is None


async def test_a_lower_horizon_is_measured_as_no_appended_events(events, monitored):
    """A standby that is promoted may lack the last positions."""
    await append_one(events, "order-1", placed(), placed())
    await monitored.measure()
    await monitored.execute("SELECT setval('saga_engine.event_position', 1)")
    await monitored.measure()
    (_, second) = monitored.emitted.matching(ProjectionsMeasured)
    assert (second.horizon, second.appended) == (1, 0)


async def test_lag_state_and_appended_events_are_emitted(events, monitored):
    first = await append_one(events, "order-1", placed())
    await monitored.measure()
    last = await append_one(events, "order-1", placed(), placed())
    await monitored.change("state = 'paused'")
    await monitored.measure()
    before, after = monitored.emitted.matching(ProjectionsMeasured)
    assert (before.horizon, before.appended, before.states) == (first, 0, {"orders": "active"})
    assert (after.horizon, after.appended, after.states) == (last, 2, {"orders": "paused"})
    assert after.lag_events == {"orders": last}
    assert after.lag_s["orders"] > 0
    assert after.horizon_age_s == 0


async def test_a_rebuild_that_is_behind_is_neither_a_problem_nor_lag(events, monitored):
    """And live tables that other code fills have a lag, and are no problem of this process."""
    position = await append_one(events, "order-1", placed())
    await monitored.change(f"position = {position}")
    async with connected(monitored.url) as other:
        await other.execute(REBUILD)
    assert await monitored.measure(3) is None
    assert monitored.emitted.matching(ProjectionsMeasured)[-1].lag_events == {"orders": 0}
    await monitored.change("code_version = 2")
    last = await append_one(events, "order-1", placed())
    assert await monitored.measure(3) is None
    behind = {"orders": last - position}
    assert monitored.emitted.matching(ProjectionsMeasured)[-1].lag_events == behind


async def test_the_transaction_that_all_wait_for_is_named_once(events, event_url, monitored):
    await append_one(events, "order-1", placed())
    async with connected(event_url) as other, other.transaction():
        await other.execute("SELECT saga_engine.announce_positions()")
        await events.append(Append("order-2", [placed()]))
        await monitored.measure(3)
        [held] = monitored.emitted.matching(HorizonHeld)
        assert held.pid == other.get_server_pid()
        ages = [each.horizon_age_s for each in monitored.emitted.matching(ProjectionsMeasured)]
        assert ages[0] == 0 < ages[1] < ages[2]
    await monitored.measure()
    assert monitored.emitted[-1].horizon_age_s == 0


async def test_a_running_projection_has_no_problem(events, event_url, database):
    async with running_projector(event_url, [orders_projection()]):
        position = await append_one(events, "order-1", placed())
        await wait_for_position(database, "orders", position)
        monitored = Monitored(database, event_url)
        assert await monitored.measure(3) is None


def test_the_metric_has_every_state():
    assert PROJECTION_STATE.values == tuple(map(str, ProjectionState))


async def test_a_projection_at_a_position_that_was_never_drawn_is_a_problem(events, monitored):
    position = await append_one(events, "order-1", placed())
    await monitored.change(f"position = {position + 1}")
    problem = await monitored.measure()
    assert f"projection orders cannot continue: position {position + 1} does not exist" in problem
