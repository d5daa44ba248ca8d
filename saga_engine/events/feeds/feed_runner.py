"""
One feed and sink in one process: take the lease, publish batches, save the position afterwards.

While the sink is out of reach or refuses events, the feed waits, and publishes again only what was
not confirmed.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from saga_engine.backoff import Backoff
from saga_engine.errors import StoreError
from saga_engine.events.event_store.log_page import LogFilter
from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.feeds.feed_batch import FeedBatch
from saga_engine.events.feeds.feed_checkpoint import FeedCheckpoint
from saga_engine.events.feeds.feed_sink import FeedSink
from saga_engine.events.feeds.feed_table import Progress
from saga_engine.events.readers.event_source import EventSource
from saga_engine.events.readers.owned_loop import NotOwner, OwnedLoop
from saga_engine.events.readers.read_ahead import ReadAhead
from saga_engine.events.readers.turns import Turn
from saga_engine.protocol.message import PublishOutcome
from saga_engine.telemetry.events import (
    FeedAcquired,
    FeedEventsPassed,
    FeedSinkDiffers,
    FeedStopped,
    FeedWaits,
)
from saga_engine.waiting import wait_for_event


class FeedRunner:
    """
    Runs one feed to one of its sinks while this process is its owner.

    Args:
        selected: which events it publishes.
        source: its events.
        checkpoint: its position and its lease.
        sink: publishes them.
        loop: runs it, and reports errors.
    """

    def __init__(
        self,
        selected: LogFilter,
        source: EventSource,
        checkpoint: FeedCheckpoint,
        sink: FeedSink,
        loop: OwnedLoop,
    ) -> None:
        self.key = checkpoint.key
        self._source = source
        self._pages = ReadAhead(source, selected)
        self._checkpoint = checkpoint
        self._sink = sink
        self._loop = loop
        self._settings = source.settings
        self._saved = 0  # the position that is stored
        self._passed = 0  # no event that has to be published is between the two
        self.waits_for_sink = False  # it has refused events; what came before is saved
        self._differences: tuple[str, ...] | None = None  # that are stored; None: it is not known
        self._problem: str | None = None  # that was reported
        self._renew_at = 0.0
        self._save_at = 0.0

    async def run(self, stop: asyncio.Event, turn: Turn | None = None) -> None:
        """Run the feed until *stop* is set, whenever it is the *turn* of this process."""
        await self._loop.run(self, stop, turn)

    def turn_failed(self) -> None:
        """Begin again at the position that is stored."""
        self.waits_for_sink = False

    async def acquire(self) -> bool:
        """Take the lease; False when the feed is stopped or has another owner."""
        position = await self._acquire()
        if position is None:
            if self._sink.problem:
                with suppress(NotOwner):
                    await self._sink.publish(())  # so that it notices when the problem is gone
            return False
        self.waits_for_sink = False
        delivered = await self._sink.resume(position)
        self._set_position(position)
        self._passed = max(position, delivered)
        self._loop.emit(FeedAcquired(feed=self.key.name, sink=self.key.sink, position=position))
        await self._report_sink()
        return True

    async def follow(self, stop: asyncio.Event) -> None:
        """Publish events until the feed stops or has another owner."""
        try:
            await self._follow(stop)
        finally:
            await self._pages.close()

    async def _follow(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            began_at = self._now()
            if self._now() >= self._renew_at and await self._acquire() != self._saved:
                raise NotOwner
            horizon, interval = self._source.horizon, self._settings.event_poll_interval_max
            is_beyond = await horizon.wait_beyond(self._passed, interval)
            if not is_beyond and horizon.position == self._passed:
                if self._sink.problem:
                    await self._publish_events(())  # for the same reason
                await self._save_passed()
                continue
            page = await self._pages.read(self._passed, self._settings.feed_batch_size)
            batch = FeedBatch(page.events, self._passed, page.position, self._sink)
            if page.events:
                await self._publish(batch, stop)
                if batch.failed:
                    self.waits_for_sink = False
                    return
            else:
                self._passed = page.position
                if self._now() >= self._save_at:
                    await self._save_passed()
            await self._let_events_gather(began_at, stop)
        await self._save_passed()

    async def _let_events_gather(self, began_at: float, stop: asyncio.Event) -> None:
        """Wait for the interval between two batches, unless more events wait already."""
        if self._passed >= self._source.horizon.position:
            interval = min(self._settings.feed_interval, self._settings.projection_lease / 3)
            await wait_for_event(stop, began_at + interval - self._now())

    async def _publish(self, batch: FeedBatch, stop: asyncio.Event) -> None:
        """Publish a batch to its end, and save the position."""
        # The lease must not end during a delay.
        backoff = Backoff(self._settings.event_poll_interval, self._settings.projection_lease / 3)
        retries = 0
        while (events := batch.next_events()) and not stop.is_set():
            outcomes = await self._publish_events(events)
            batch.record(zip(events, outcomes, strict=True))
            if PublishOutcome.NACKED in outcomes or PublishOutcome.UNKNOWN in outcomes:
                await self._save(batch)
                self.waits_for_sink = True
                await wait_for_event(stop, backoff.delay(retries))
                retries += 1
            else:
                self.waits_for_sink = False
                retries = 0
        await self._save(batch, is_finished=not batch.next_events())

    async def _publish_events(self, events: Sequence[Recorded]) -> list[PublishOutcome]:
        """
        Publish events and wait for their confirms; meanwhile keep the lease.

        Raises:
            NotOwner: the lease was lost. The events may have been published.
        """
        is_owner, outcomes = True, []
        try:
            async with asyncio.TaskGroup() as tasks:
                publishing = tasks.create_task(self._sink.publish(events))
                while not publishing.done():
                    await asyncio.wait([publishing], timeout=max(0.0, self._renew_at - self._now()))
                    if not publishing.done():
                        is_owner = await self._keep_lease()
            outcomes = publishing.result()
        except* NotOwner:
            is_owner = False
        if not is_owner:
            raise NotOwner
        await self._report_sink()
        return outcomes

    async def _keep_lease(self) -> bool:
        """Renew the lease; False when another process has changed the feed."""
        try:
            return await self._acquire() == self._saved
        except StoreError as error:
            self._plan_renewal()
            self._loop.report_unavailable(error)
            return True

    async def _acquire(self) -> int | None:
        position = await self._checkpoint.acquire()
        self._plan_renewal()
        return position

    async def _save(self, batch: FeedBatch, *, is_finished: bool = False) -> None:
        """
        Save how far a batch is; stop the feed if it has come to an event that it cannot publish.

        Raises:
            NotOwner: another process has changed the feed.
        """
        failed = batch.failed if is_finished else None
        progress = Progress(
            self._saved, batch.position, batch.take_skipped(), self._sink.confirmed_offsets
        )
        problem = self._sink.explain(*failed) if failed else ""
        await self._checkpoint.save(progress, (failed[0], problem) if failed else None)
        self._set_position(batch.position)
        self._report_passed(batch.take_published(), progress.skipped)
        if failed:
            self._report_stopped(failed[0], problem)

    async def _save_passed(self) -> None:
        """Save that there was nothing to publish, so that the position shows no lag."""
        if self._passed > self._saved:
            await self._save(FeedBatch((), self._saved, self._passed, self._sink))

    def _set_position(self, position: int) -> None:
        self._saved = self._passed = position
        self._save_at = self._now() + self._settings.event_poll_interval_max
        self._plan_renewal()

    def _plan_renewal(self) -> None:
        self._renew_at = self._now() + self._settings.projection_lease / 3

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _report_sink(self) -> None:
        """Report why the sink takes nothing, and how it differs from what the feed declares."""
        problem, differences = self._sink.problem, self._sink.differences
        feed, sink = self.key.name, self.key.sink
        if problem and problem != self._problem:
            self._loop.emit(FeedWaits(feed=feed, sink=sink, problem=problem))
        self._problem = problem
        if differences != self._differences:
            await self._checkpoint.save_differences(differences)
            self._differences = differences
            if differences:
                self._loop.emit(FeedSinkDiffers(feed=feed, sink=sink, differences=differences))

    def _report_passed(self, published: int, skipped: int) -> None:
        if published or skipped:
            self._loop.emit(
                FeedEventsPassed(
                    feed=self.key.name,
                    sink=self.key.sink,
                    published=published,
                    skipped=skipped,
                )
            )

    def _report_stopped(self, event: Recorded, problem: str) -> None:
        self._loop.emit(
            FeedStopped(
                feed=self.key.name,
                sink=self.key.sink,
                position=event.position,
                stream=event.stream,
                event_type=event.type,
                problem=problem,
                next_command=self.key.show_command,
            )
        )
