"""One projection in one process: take the lease, apply batches, keep the lease."""

import asyncio
from dataclasses import replace

from saga_engine.events.event_store.log_page import LogFilter, LogPage
from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.handlers.poison_event import PoisonEvent
from saga_engine.events.projections.event_batch import BatchResult, EventBatch, StreamRetry
from saga_engine.events.projections.projection_batch import BatchApplier
from saga_engine.events.projections.projection_failures import ParkedStream
from saga_engine.events.projections.projection_key import show_command
from saga_engine.events.projections.projection_version import ProjectionVersion
from saga_engine.events.projections.rebuild_pace import RebuildPace
from saga_engine.events.readers.batch_size import BatchSize
from saga_engine.events.readers.event_source import EventSource
from saga_engine.events.readers.owned_loop import NotOwner, OwnedLoop
from saga_engine.events.readers.read_ahead import ReadAhead
from saga_engine.events.readers.turns import Turn
from saga_engine.telemetry.events import (
    Observer,
    ProjectionAcquired,
    ProjectionBatchApplied,
    ProjectionStopped,
    StreamParked,
)
from saga_engine.telemetry.operations import Operation
from saga_engine.waiting import wait_for_event


class ProjectionRunner:
    """
    Runs one version of a projection while this process is its owner.

    Args:
        projection: a version that is stored.
        source: its events.
        applier: applies them.
        emit: takes telemetry events.
        pace: how long it waits between two batches; None: it does not.
    """

    def __init__(
        self,
        projection: ProjectionVersion,
        source: EventSource,
        applier: BatchApplier,
        emit: Observer,
        pace: RebuildPace | None = None,
    ) -> None:
        self._projection = projection
        self._source = source
        self._applier = applier
        self._emit = emit
        self._pace = pace
        self._settings = settings = source.settings
        self._types = sorted(projection.declaration.handlers)
        self._pages = ReadAhead(source, LogFilter.create(self._types, None))
        self._size = BatchSize(settings.projection_batch_seconds, settings.projection_batch_size)
        self._saved = 0  # the checkpoint that is stored
        self._passed = 0  # no event that the projection handles is between the two
        self._retried: list[ParkedStream] = []
        self._renew_at = 0.0
        self._save_at = 0.0

    async def run(self, stop: asyncio.Event, turn: Turn | None = None) -> None:
        """Run the projection until *stop* is set, whenever it is the *turn* of this process."""
        await OwnedLoop(Operation.PROJECTION, self._settings, self._emit).run(self, stop, turn)

    def turn_failed(self) -> None:
        """Make the next batch smaller: this one may have exceeded a limit."""
        self._size.failed()

    async def acquire(self) -> bool:
        """Take the lease; False when the projection is not active or has another owner."""
        position = await self._applier.acquire()
        if position is None:
            return False
        self._set_position(position)
        self._plan_renewal()
        self._emit(
            ProjectionAcquired(
                projection=self._projection.name,
                version=self._projection.version,
                position=position,
            )
        )
        return True

    async def follow(self, stop: asyncio.Event) -> None:
        """Apply events until the projection stops, is paused, or has another owner."""
        try:
            await self._follow(stop)
        finally:
            await self._pages.close()

    async def _follow(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            if self._now() >= self._renew_at:
                await self._renew()
            if self._retried and (await self._retry(self._retried.pop(0))).stopped:
                return
            horizon = self._source.horizon
            interval = 0.0 if self._retried else self._settings.event_poll_interval_max
            is_beyond = await horizon.wait_beyond(self._passed, interval)
            if not is_beyond and horizon.position == self._passed:
                await self._save_passed()
                continue
            result = await self._apply_next()
            if result.stopped:
                return
            if self._pace and (seconds := await self._pace.pause()):
                await wait_for_event(stop, min(seconds, self._settings.projection_lease / 3))
        await self._save_passed()

    async def _apply_next(self) -> BatchResult:
        page = await self._pages.read(self._passed, self._size.events)
        if not page.events and self._now() < self._save_at:
            self._passed = page.position
            return BatchResult(self._saved)
        started_at = self._now()
        result = await self._applier.apply(EventBatch(self._saved, page.position, page.events))
        if page.events:
            self._report_batch(page, result, self._now() - started_at)
        self._set_position(result.position)
        self._report_poison(result)
        return result

    async def _save_passed(self) -> None:
        """Save that there was nothing to apply, for readers who wait for their own writes."""
        if self._passed > self._saved:
            result = await self._applier.apply(EventBatch(self._saved, self._passed, ()))
            self._set_position(result.position)

    async def _renew(self) -> None:
        """
        Renew the lease, and look for streams that an operator wants to be retried.

        Raises:
            NotOwner: it is paused, or another process has changed it.
        """
        if await self._applier.acquire() != self._saved:
            raise NotOwner
        self._plan_renewal()
        self._retried = await self._applier.retried_streams() if self._applier.parked else []

    async def _retry(self, parked: ParkedStream) -> BatchResult:
        """Apply the next events of a parked stream, up to the checkpoint."""
        events = await self._read_parked(parked)
        following = None
        if events:
            last = events[-1]
            following = replace(parked, next_position=last.position + 1, next_version=last.version)
        retry = StreamRetry(self._saved, parked, events, following)
        result = await self._applier.retry_stream(retry)
        self._report_poison(result)
        if following and self._applier.parked.get(parked.stream) == following.next_position:
            self._retried.insert(0, following)
        return result

    async def _read_parked(self, parked: ParkedStream) -> list[Recorded]:
        after = parked.next_version - 1
        while page := await self._source.read_stream(parked.stream, after):
            # A row of a run's journal has several events of one version.
            events = [each for each in page if each.position >= parked.next_position]
            if events:
                due = [each for each in events if each.position <= self._saved]
                return due[: self._size.events]
            after = page[-1].version
        return []

    def _set_position(self, position: int) -> None:
        self._saved = self._passed = position
        self._save_at = self._now() + self._settings.event_poll_interval_max

    def _plan_renewal(self) -> None:
        self._renew_at = self._now() + self._settings.projection_lease / 3

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _report_batch(self, page: LogPage, result: BatchResult, duration_s: float) -> None:
        self._size.succeeded(len(page.events), duration_s)
        passed = sum(each.position <= result.position for each in page.events)
        self._emit(
            ProjectionBatchApplied(
                projection=self._projection.name, events=passed, duration_s=duration_s
            )
        )

    def _report_poison(self, result: BatchResult) -> None:
        for n, poison in enumerate(result.poison, 1):
            stopped = result.stopped and n == len(result.poison)
            self._emit(self._poison_event(poison, ProjectionStopped if stopped else StreamParked))

    def _poison_event(
        self, poison: PoisonEvent, kind: type[ProjectionStopped | StreamParked]
    ) -> ProjectionStopped | StreamParked:
        return kind(
            projection=self._projection.name,
            version=self._projection.version,
            position=poison.recorded.position,
            stream=poison.recorded.stream,
            event_type=poison.recorded.type,
            problem=poison.error,
            next_command=show_command(self._projection),
        )
