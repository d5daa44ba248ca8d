"""The loop of one read model in one process: take the lease, apply batches, wait."""

import asyncio

from saga_engine.events.projections.projection_key import show_command
from saga_engine.events.read_models.read_model_batch import ReadModelApplier, ReadModelBatch
from saga_engine.events.readers.owned_loop import NotOwner, OwnedLoop
from saga_engine.events.readers.turns import Turn
from saga_engine.settings import Settings
from saga_engine.telemetry.events import (
    Observer,
    ProjectionAcquired,
    ProjectionBatchApplied,
    ProjectionStopped,
)
from saga_engine.telemetry.operations import Operation
from saga_engine.waiting import wait_for_event


class ReadModelRunner:
    """
    Runs one read model while this process is its owner.

    Between two batches it waits `read_model_interval`: a batch costs the same with few events and
    with many, so a longer interval costs less for each event.

    Args:
        applier: applies its batches.
        settings: how often, and how much at once.
        emit: takes telemetry events.
    """

    def __init__(self, applier: ReadModelApplier, settings: Settings, emit: Observer) -> None:
        self._applier = applier
        self._model = applier.model
        self._settings = settings
        self._emit = emit
        self._position = 0
        self._window = settings.event_window

    async def run(self, stop: asyncio.Event, turn: Turn | None = None) -> None:
        """Run the read model until *stop* is set, whenever it is the *turn* of this process."""
        await OwnedLoop(Operation.PROJECTION, self._settings, self._emit).run(self, stop, turn)

    def turn_failed(self) -> None:
        """Make the next batch smaller: this one may have exceeded a limit."""
        self._window = max(1, self._window // 2)

    async def acquire(self) -> bool:
        """Take the lease; False when the read model is not active or has another owner."""
        position = await self._applier.acquire()
        if position is None:
            return False
        self._position = position
        self._emit(
            ProjectionAcquired(
                projection=self._model.name, version=self._model.version, position=position
            )
        )
        return True

    async def follow(self, stop: asyncio.Event) -> None:
        """Apply batches until the read model stops, is paused, or has another owner."""
        while not stop.is_set():
            batch = await self._apply_next()
            if batch.poison:
                return
            if batch.position < batch.horizon:
                continue
            await wait_for_event(stop, self._settings.read_model_interval)

    async def _apply_next(self) -> ReadModelBatch:
        started_at = self._now()
        batch = await self._applier.apply_next(self._position, self._window)
        if batch.position == self._position and not batch.poison:
            await self._renew()
            return batch
        self._report(batch, batch.position - self._position, self._now() - started_at)
        self._position = batch.position
        self._window = min(2 * self._window, self._settings.event_window)
        return batch

    async def _renew(self) -> None:
        """
        Renew the lease while there is nothing to apply.

        Raises:
            NotOwner: it is paused, or another process has changed it.
        """
        if await self._applier.acquire() != self._position:
            raise NotOwner

    def _report(self, batch: ReadModelBatch, passed: int, duration_s: float) -> None:
        name = self._model.name
        self._emit(ProjectionBatchApplied(projection=name, events=passed, duration_s=duration_s))
        if batch.poison:
            recorded = batch.poison.recorded
            self._emit(
                ProjectionStopped(
                    projection=name,
                    version=self._model.version,
                    position=recorded.position,
                    stream=recorded.stream,
                    event_type=recorded.type,
                    problem=batch.poison.error,
                    next_command=show_command(self._model),
                )
            )

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
