"""
Measures the horizon and the lag of projections, and notices those that do not move.

It reads what is stored, not what the loops of this process believe: a loop that has ended, or waits
without end, is visible. A projection is healthy when its position moves or equals the horizon, and
is one that the database has drawn.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from saga_engine.errors import StoreError
from saga_engine.events import positions
from saga_engine.events.event_log import EventLog
from saga_engine.events.horizon_hold import HorizonHold, find_hold
from saga_engine.events.projection import Projection
from saga_engine.events.projection_lag import ProjectionLag, read_lags
from saga_engine.events.projection_table import ProjectionState, StoredProjection
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.telemetry.events import (
    DatabaseUnavailable,
    HorizonHeld,
    Observer,
    ProjectionsMeasured,
)
from saga_engine.telemetry.operations import Operation
from saga_engine.waiting import wait_for_event

_NO_HOLD = -1
"""In the place of a horizon: no transaction holds it."""


@dataclass(slots=True)
class Standstill:
    """A position that was seen first at `since`, on the clock of the event loop."""

    position: int
    since: float

    def observe(self, position: int, now: float) -> float:
        """Note the position now; return for how many seconds it has not moved."""
        if position != self.position:
            self.position, self.since = position, now
        return now - self.since


class StallDetector:
    """
    Finds the projections of a process that do not move although they should.

    Args:
        owner: the process. A projection that no process runs is its concern, too.
        timeout: seconds without a move.
    """

    def __init__(self, owner: str, timeout: float) -> None:
        self._owner = owner
        self._timeout = timeout
        self._positions: dict[str, Standstill] = {}

    def find(self, lags: Sequence[ProjectionLag], horizon: int, now: float) -> list[str]:
        """Describe each projection that stands still, given the positions now."""
        problems = [self._problem(each.projection, horizon, now) for each in lags]
        return [each for each in problems if each]

    def _problem(self, stored: StoredProjection, horizon: int, now: float) -> str | None:
        standstill = self._positions.setdefault(stored.name, Standstill(stored.position, now))
        unmoved_s = standstill.observe(stored.position, now)
        is_due = stored.state is ProjectionState.ACTIVE and stored.owner in (self._owner, None)
        if not is_due or stored.position >= horizon:
            standstill.since = now
            return None
        if unmoved_s < self._timeout:
            return None
        return (
            f"projection {stored.name} has been at position {stored.position} for"
            f" {unmoved_s:.0f} s, and there are events up to {horizon}"
        )


class ProjectionMonitor:
    """
    Measures periodically, and emits what it finds.

    Args:
        database: of the events and the projections.
        projections: those that this process declares.
        owner: this process, as it is stored with its leases.
        settings: how often, and what counts as a standstill.
        emit: takes telemetry events.
    """

    def __init__(
        self,
        database: Database,
        projections: Sequence[Projection],
        owner: str,
        settings: Settings,
        emit: Observer,
    ) -> None:
        self._database = database
        self._keys = {(each.name, each.version) for each in projections}
        self._settings = settings
        self._emit = emit
        self._last_horizon: int | None = None
        self._hold = Standstill(_NO_HOLD, 0.0)
        self._reported_hold = _NO_HOLD
        self._detector = StallDetector(owner, settings.projection_stall_timeout)
        self._stalled: list[str] = []

    @property
    def problem(self) -> str | None:
        """Which projections of this process do not move, as a sentence; None: all do."""
        return "; ".join(self._stalled) or None

    async def run(self, stop: asyncio.Event) -> None:
        """Measure until *stop* is set."""
        while not stop.is_set():
            try:
                await self.measure()
            except StoreError as error:
                self._emit(DatabaseUnavailable(operation=Operation.PROJECTION, problem=str(error)))
            await wait_for_event(stop, self._settings.projection_monitor_interval)

    async def measure(self) -> None:
        """
        Measure once.

        Raises:
            StoreError: the database is unavailable.
        """
        async with self._database.transaction() as tx:
            log = await EventLog.load(tx)
            horizon, found = await read_lags(tx, log)
            last_position = await positions.last_drawn(tx)
            hold = await find_hold(tx, horizon)
        lags = [each for each in found if _key(each) in self._keys]
        now = asyncio.get_running_loop().time()
        held_s = self._hold.observe(horizon if hold else _NO_HOLD, now)
        lost = [problem for each in lags if (problem := _lost_problem(each, last_position))]
        self._stalled = lost + self._detector.find(lags, horizon, now)
        self._emit(
            ProjectionsMeasured(
                horizon=horizon,
                appended=horizon - (horizon if self._last_horizon is None else self._last_horizon),
                horizon_age_s=held_s if hold else 0.0,
                lag_events={each.projection.name: each.lag_events for each in lags},
                lag_s={each.projection.name: each.lag_seconds for each in lags},
                states={each.projection.name: str(each.projection.state) for each in lags},
            )
        )
        self._last_horizon = horizon
        if hold is not None:
            self._report_hold(hold, horizon, held_s)

    def _report_hold(self, hold: HorizonHold, horizon: int, age_s: float) -> None:
        """Report once for each horizon that a transaction holds for too long."""
        if horizon == self._reported_hold or age_s < self._settings.horizon_hold_warning:
            return
        self._reported_hold = horizon
        self._emit(
            HorizonHeld(
                position=horizon,
                age_s=round(age_s, 3),
                pid=hold.pid,
                application=hold.application,
                state=hold.state,
            )
        )


def _lost_problem(lag: ProjectionLag, last_position: int) -> str | None:
    stored = lag.projection
    if stored.position <= last_position:
        return None
    lost = positions.lost_position(stored.position, last_position)
    return f"projection {stored.name} cannot continue: {lost}"


def _key(lag: ProjectionLag) -> tuple[str, int]:
    return lag.projection.name, lag.projection.version
