"""
Measures the horizon and the lag of projections, and notices those that do not move.

A projection is healthy when it is stored, and its position moves or equals the horizon, and is one
that the database has drawn.
"""

import asyncio
from collections.abc import Sequence

from saga_engine.events.event_store import positions
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.projections import projection_table
from saga_engine.events.projections.projection_key import ProjectionKey
from saga_engine.events.projections.projection_table import ProjectionRole, StoredProjection
from saga_engine.events.readers.horizon_hold import HorizonHold, find_hold
from saga_engine.events.readers.lag import read_lags
from saga_engine.events.readers.stall_detector import StallDetector, Standstill
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.telemetry.events import (
    HorizonHeld,
    Observer,
    ProjectionsMeasured,
)
from saga_engine.telemetry.operations import Operation

_NO_HOLD = -1
"""In the place of a horizon: no transaction holds it."""


class ProjectionMonitor:
    """
    Measures the projections of a process, and emits what it finds.

    Args:
        database: of the events and the projections.
        projections: those that this process declares.
        owner: this process, as it is stored with its leases.
        settings: what counts as a standstill.
        emit: takes telemetry events.
    """

    operation = Operation.PROJECTION

    def __init__(
        self,
        database: Database,
        projections: Sequence[ProjectionKey],
        owner: str,
        settings: Settings,
        emit: Observer,
    ) -> None:
        self._database = database
        self._code_versions = {each.name: each.version for each in projections}
        self._settings = settings
        self._emit = emit
        self._last_horizon: int | None = None
        self._hold = Standstill(_NO_HOLD, 0.0)
        self._reported_hold = _NO_HOLD
        self._detector = StallDetector("projection", owner, settings.projection_stall_timeout)
        self._stalled: list[str] = []

    @property
    def problem(self) -> str | None:
        """Which projections of this process do not move, as a sentence; None: all do."""
        return "; ".join(self._stalled) or None

    async def measure(self) -> None:
        """
        Measure once.

        Raises:
            StoreError: the database is unavailable.
        """
        async with self._database.transaction() as tx:
            log = await EventLog.load(tx)
            found = await projection_table.read(tx)
            measured = [each for each in found if self._is_measured(each)]
            horizon, lags = await read_lags(tx, log, measured)
            last_position = await positions.last_drawn(tx)
            hold = await find_hold(tx, horizon)
        runnable = [each for each in measured if self._can_run(each)]
        now = asyncio.get_running_loop().time()
        held_s = self._hold.observe(horizon if hold else _NO_HOLD, now)
        lost = [problem for each in measured if (problem := _lost_problem(each, last_position))]
        unmoved = self._detector.find(runnable, horizon, now)
        missing = self._code_versions.keys() - {each.name for each in measured}
        self._stalled = [*map(_missing_problem, sorted(missing)), *lost, *unmoved]
        before = horizon if self._last_horizon is None else self._last_horizon
        self._emit(
            ProjectionsMeasured(
                horizon=horizon,
                # A failover may lose positions, and a counter is never lowered.
                appended=max(0, horizon - before),
                horizon_age_s=held_s if hold else 0.0,
                lag_events={each.stored.name: each.lag_events for each in lags},
                lag_s={each.stored.name: each.lag_seconds for each in lags},
                states={each.stored.name: str(each.stored.state) for each in lags},
            )
        )
        self._last_horizon = horizon
        if hold is not None:
            self._report_hold(hold, horizon, held_s)

    def _is_measured(self, stored: StoredProjection) -> bool:
        """Whether readers see it; a rebuild may be behind."""
        return stored.role is ProjectionRole.LIVE and stored.name in self._code_versions

    def _can_run(self, stored: StoredProjection) -> bool:
        """Whether this process has its code; other code has to be run by another process."""
        return self._code_versions[stored.name] == stored.code_version

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


def _lost_problem(stored: StoredProjection, last_position: int) -> str | None:
    if stored.position <= last_position:
        return None
    lost = positions.lost_position(stored.position, last_position)
    return f"projection {stored.name} cannot continue: {lost}"


def _missing_problem(name: str) -> str:
    return (
        f"projection {name} is no longer in the database: its row was deleted. To run it again,"
        " restart the projector"
    )
