"""
The operator of the projection: deploys corrected code, and retries the streams that are parked.

Until then the code of some worlds cannot apply some of the events.
"""

import asyncio
from collections.abc import Callable

from saga_engine.errors import StoreUnavailable
from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.projections.projection import Projection
from simulation.effect_events import declare_views, views
from simulation.memory_client import MemoryDatabaseClient
from simulation.projection_model import MemoryProjectionStore
from simulation.services_model import ServicesTransaction

CORRECTED_AT_S = 15.0
"""When the corrected code is deployed, in seconds of virtual time."""

RETRY_INTERVAL_S = 2.0
"""Seconds between two retries of all parked streams."""

FAULTY_ENDINGS = ("0", "4", "8", "c")
"""The last digits of the streams that the faulty code cannot apply, beyond their first event."""


class ProjectionOperator:
    """
    Deploys the code of the projection.

    Args:
        client: of the database of the services.
        begins_faulty: whether the code cannot apply some events until it is corrected.
    """

    def __init__(
        self, client: MemoryDatabaseClient[ServicesTransaction], *, begins_faulty: bool
    ) -> None:
        self._store = MemoryProjectionStore(client, views)
        self._is_faulty = begins_faulty

    @property
    def deployed(self) -> Projection:
        """The code that a process has which starts now."""
        return declare_views(_is_handled_by_faulty_code) if self._is_faulty else views

    async def run(self, restart: Callable[[], None], is_over: Callable[[], bool]) -> None:
        """
        Correct the code, and retry until the world is over.

        Args:
            restart: lets every projector restart.
            is_over: whether the world is.
        """
        await asyncio.sleep(CORRECTED_AT_S)
        self._is_faulty = False
        restart()
        while not is_over():
            await self._retry()
            await asyncio.sleep(RETRY_INTERVAL_S)

    async def _retry(self) -> None:
        try:
            async with self._store.transaction() as tx:
                await tx.request_retries()
        except StoreUnavailable:
            pass  # It retries later.


def _is_handled_by_faulty_code(recorded: Recorded) -> bool:
    return recorded.version == 1 or not recorded.stream.endswith(FAULTY_ENDINGS)
