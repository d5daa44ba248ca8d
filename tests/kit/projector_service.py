"""The process of a projector, in the test's process."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from saga_engine.events import Feed
from saga_engine.events.service import ProjectorService
from saga_engine.settings import Settings
from tests.kit.events import EventRecorder
from tests.kit.projections import FAST
from tests.kit.read_model import orders_projection


@asynccontextmanager
async def running_service(
    url: str, *, feeds: Sequence[Feed] = (), **settings: Any
) -> AsyncIterator[tuple[ProjectorService, EventRecorder]]:
    """A service with the projection of orders while the block runs, and what it emits."""
    emitted, stop = EventRecorder(), asyncio.Event()
    chosen = {**FAST, "projection_monitor_interval": 0.02, "database_url": url, **settings}
    async with (
        ProjectorService(
            [orders_projection()], Settings(**chosen), emitted, feeds=feeds
        ) as service,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(service.run(stop))
        try:
            yield service, emitted
        finally:
            stop.set()
