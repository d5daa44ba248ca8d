"""A worker, and the engine's read models beside it in its process."""

import asyncio
from contextlib import AsyncExitStack

from saga_engine.engine_process import Readiness
from saga_engine.events.read_models.read_models import ReadModels
from saga_engine.events.readers.owned_loop import MAX_RETRY_DELAY
from saga_engine.lifecycle import AsyncResource
from saga_engine.telemetry.events import Emitter, InternalErrorCaught
from saga_engine.telemetry.events.emitter import describe_error
from saga_engine.telemetry.operations import Operation
from saga_engine.waiting import wait_for_event
from saga_engine.worker.worker import Worker


class WorkerWithReadModels(AsyncResource):
    """
    Runs both; `async with` opens them, `run` runs them.

    Nothing that goes wrong with the read models ends the worker.

    Args:
        worker: not open yet.
        read_models: not open yet.
        emit: receives telemetry.
    """

    def __init__(self, worker: Worker, read_models: ReadModels, emit: Emitter) -> None:
        self._worker = worker
        self._read_models = read_models
        self._emit = emit

    async def _open(self, resources: AsyncExitStack) -> None:
        await resources.enter_async_context(self._read_models)
        await resources.enter_async_context(self._worker)

    async def run(self, stop: asyncio.Event) -> None:
        """Run until *stop* is set and the worker has shut down."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._run_read_models(stop))
            await self._worker.run(stop)

    async def _run_read_models(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await self._read_models.run(stop)
            except Exception as error:  # noqa: BLE001 - reported, and tried again: the worker goes on
                problem = describe_error(error)
                self._emit(InternalErrorCaught(operation=Operation.PROJECTION, problem=problem))
                await wait_for_event(stop, MAX_RETRY_DELAY)

    async def readiness(self) -> Readiness:
        """Report each dependency of the process; see Readiness."""
        return {**await self._worker.readiness(), "read_models": self._read_models.problem}
