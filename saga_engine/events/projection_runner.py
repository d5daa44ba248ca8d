"""
The loop of one projection in one process: take the lease, apply batches, keep the lease.

An error of the database ends a turn. The next one starts from the checkpoint that is stored, so
nothing has to be known of a commit whose answer was lost.
"""

import asyncio
from dataclasses import dataclass

from saga_engine.backoff import Backoff
from saga_engine.errors import StoreLockTimeout, StoreUnavailable
from saga_engine.events import projection_failures
from saga_engine.events.batch_size import BatchSize
from saga_engine.events.event_log import EventLog
from saga_engine.events.horizon_watch import HorizonWatch
from saga_engine.events.log_page import LogFilter, LogPage, read_page
from saga_engine.events.projection import Projection
from saga_engine.events.projection_batch import BatchApplier, BatchResult, EventBatch, NotOwner
from saga_engine.events.projection_failures import PoisonEvent
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.telemetry.events import (
    DatabaseUnavailable,
    InternalErrorCaught,
    Observer,
    ProjectionAcquired,
    ProjectionStopped,
    StreamParked,
)
from saga_engine.telemetry.events.emitter import describe_error
from saga_engine.telemetry.operations import Operation
from saga_engine.waiting import wait_for_event

MAX_RETRY_DELAY = 5.0
"""The longest backoff, in seconds: how late a projection notices that the database is available."""


@dataclass(frozen=True, slots=True)
class EventSource:
    """Where the projections of a process read: a database, the identity of its log, its horizon."""

    database: Database
    log: EventLog
    horizon: HorizonWatch
    settings: Settings

    async def read(self, log_filter: LogFilter, after: int, max_events: int) -> LogPage:
        """Read up to *max_events* events after a position, up to the horizon that was seen last."""
        async with self.database.transaction() as tx:
            return await read_page(
                tx, self.log, log_filter, (after, self.horizon.position), self.settings, max_events
            )


class ProjectionRunner:
    """
    Runs one projection while this process is its owner.

    Args:
        projection: a registered projection.
        source: its events.
        applier: applies them.
        emit: takes telemetry events.
    """

    def __init__(
        self, projection: Projection, source: EventSource, applier: BatchApplier, emit: Observer
    ) -> None:
        self._projection = projection
        self._source = source
        self._applier = applier
        self._emit = emit
        self._settings = settings = source.settings
        self._types = sorted(projection.handlers)
        self._filter = LogFilter.create(self._types, None)
        self._size = BatchSize(settings.projection_batch_seconds, settings.projection_batch_size)
        self._saved = 0  # the checkpoint that is stored
        self._passed = 0  # no event that the projection handles is between the two
        self._renew_at = 0.0
        self._save_at = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Run the projection until *stop* is set, whenever this process can be its owner."""
        backoff = Backoff(self._settings.event_poll_interval_max, MAX_RETRY_DELAY)
        failures = 0
        while not stop.is_set():
            try:
                if not await self._acquire():
                    await wait_for_event(stop, self._settings.projection_lease / 3)
                    continue
                failures = 0
                await self._follow(stop)
            except NotOwner:
                continue
            except Exception as error:  # noqa: BLE001 - reported, and retried: it ends no other
                self._report(error)
                self._size.failed()
                failures += 1
                await wait_for_event(stop, backoff.delay(failures))

    async def _acquire(self) -> bool:
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

    async def _follow(self, stop: asyncio.Event) -> None:
        """Apply events until the projection stops, is paused, or has another owner."""
        while not stop.is_set():
            if self._now() >= self._renew_at:
                await self._renew()
            if not await self._source.horizon.wait_beyond(
                self._passed, self._settings.event_poll_interval_max
            ):
                await self._save_passed()
                continue
            result = await self._apply_next()
            if result.stopped:
                return
        await self._save_passed()

    async def _apply_next(self) -> BatchResult:
        page = await self._source.read(self._filter, self._passed, self._size.events)
        if not page.events and self._now() < self._save_at:
            self._passed = page.position
            return BatchResult(self._saved)
        started_at = self._now()
        result = await self._applier.apply(EventBatch(self._saved, page.position, page.events))
        if page.events:
            self._size.succeeded(len(page.events), self._now() - started_at)
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
        Renew the lease, and retry the streams that an operator wants to be retried.

        Raises:
            NotOwner: it is paused, or another process has changed it.
        """
        if await self._applier.acquire() != self._saved:
            raise NotOwner
        self._plan_renewal()
        if self._applier.parked:
            async with self._source.database.transaction() as tx:
                streams = await projection_failures.retried_streams(tx, self._projection)
            for stream in streams:
                await self._retry(stream)

    async def _retry(self, stream: str) -> None:
        """Apply the events of a parked stream, from the one that failed, up to the checkpoint."""
        log_filter = LogFilter.create(self._types, [stream])
        while (next_position := self._applier.parked.get(stream)) is not None:
            page = await self._source.read(log_filter, next_position - 1, self._size.events)
            events = [each for each in page.events if each.position <= self._saved]
            batch = EventBatch(self._saved, page.position, events)
            result = await self._applier.retry_stream(stream, batch)
            self._report_poison(result)
            if result.poison:
                return

    def _set_position(self, position: int) -> None:
        self._saved = self._passed = position
        self._save_at = self._now() + self._settings.event_poll_interval_max

    def _plan_renewal(self) -> None:
        self._renew_at = self._now() + self._settings.projection_lease / 3

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _report(self, error: Exception) -> None:
        if isinstance(error, StoreUnavailable):
            if not isinstance(error, StoreLockTimeout):
                self._emit(DatabaseUnavailable(operation=Operation.PROJECTION, problem=str(error)))
            return
        self._emit(
            InternalErrorCaught(operation=Operation.PROJECTION, problem=describe_error(error))
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
        )
