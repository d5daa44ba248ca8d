"""
How a rebuild makes way for the live version of its projection: readers see that one.

Both are filled from the same database, often by the same process.
"""

import asyncio

from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.projections import projection_table
from saga_engine.events.projections.projection_table import ProjectionRole, ProjectionState
from saga_engine.events.projections.projection_version import ProjectionVersion
from saga_engine.events.readers.lag import read_lags
from saga_engine.settings import Settings
from saga_engine.store.database import Database


class RebuildPace:
    """
    How long one version of a projection waits between two batches.

    Args:
        database: which has it.
        log: of that database.
        version: a version that is not live.
        settings: how far the live version may be behind, and how often to look.
    """

    def __init__(
        self, database: Database, log: EventLog, version: ProjectionVersion, settings: Settings
    ) -> None:
        self._database = database
        self._log = log
        self._version = version
        self._settings = settings
        self._pause = 0.0
        self._look_at = 0.0

    async def pause(self) -> float:
        """
        Return how many seconds to wait after a batch; 0 unless the live version is behind.

        It moves on even then, by a batch in that time: its code may be the faster one.

        Raises:
            StoreUnavailable: the database is out of reach.
        """
        now = asyncio.get_running_loop().time()
        if now >= self._look_at:
            self._pause = await self._read_pause()
            self._look_at = now + self._settings.event_poll_interval_max
        return self._pause

    async def _read_pause(self) -> float:
        async with self._database.transaction() as tx:
            stored = await projection_table.read(tx, self._version.name)
            roles = {each.role: each for each in stored}
            live = roles.get(ProjectionRole.LIVE)
            rebuild = roles.get(ProjectionRole.REBUILD)
            if live is None or rebuild is None or rebuild.version != self._version.version:
                return 0.0
            if live.state is not ProjectionState.ACTIVE or live.owner is None:
                return 0.0  # nothing that it could make way for
            _, (lag,) = await read_lags(tx, self._log, [live])
        limit = self._settings.projection_rebuild_yield_lag
        return limit if lag.lag_seconds > limit else 0.0
