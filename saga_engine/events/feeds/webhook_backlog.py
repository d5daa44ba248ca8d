"""
The streams that wait for an event which a webhook has refused, and their later delivery.

A stream is *added* when its event is refused. Its later events are *handed over* by the feed, whose
position moves on; they are read again when it is their turn. A stream that has caught up with what
was handed over leaves, and the feed publishes its events itself again.
"""

import asyncio
from dataclasses import replace
from random import random

from saga_engine.errors import StoreError
from saga_engine.events.event_store import log_page
from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.feeds import waiting_streams
from saga_engine.events.feeds.owned_feed import OwnedFeed
from saga_engine.events.feeds.waiting_streams import Refusal, WaitingStream
from saga_engine.events.feeds.webhook_answer import Answer, Verdict
from saga_engine.events.feeds.webhook_endpoint import WebhookEndpoint, retry_backoff
from saga_engine.settings import Settings
from saga_engine.telemetry.events import (
    DatabaseUnavailable,
    FeedEventDeadLettered,
    FeedEventsPassed,
    Observer,
)
from saga_engine.telemetry.operations import Operation
from saga_engine.waiting import wait_for_event


class WebhookBacklog:
    """
    The waiting streams of one feed, while this process is its owner; see OwnedLoop.

    Args:
        feed: the feed.
        endpoint: the receiver.
        settings: backoff, and how many streams may wait.
        emit: takes telemetry events.
    """

    def __init__(
        self, feed: OwnedFeed, endpoint: WebhookEndpoint, settings: Settings, emit: Observer
    ) -> None:
        self._feed = feed
        self._endpoint = endpoint
        self._settings = settings
        self._emit = emit
        self._backoff = retry_backoff(settings)
        self._handed_over: dict[str, int] = {}  # the last position of each waiting stream
        self._must_look = False  # a stream may be stored that is not in it

    def __contains__(self, stream: str) -> bool:
        return stream in self._handed_over

    @property
    def is_full(self) -> bool:
        """Whether no further stream may wait."""
        return len(self._handed_over) >= self._settings.webhook_max_waiting_streams

    async def load(self, position: int) -> None:
        """Begin as the owner, at the position of the feed: all events up to it are handed over."""
        async with self._feed.database.transaction() as tx:
            streams = await waiting_streams.load(tx, self._feed.key)
        self._handed_over = dict.fromkeys(streams, position)

    def hand_over(self, event: Recorded) -> None:
        """Take the next event of a waiting stream, to deliver it after those before it."""
        self._handed_over[event.stream] = event.position

    async def add(self, event: Recorded, answer: Answer) -> bool:
        """
        Let a stream wait at an event that was refused.

        Returns:
            Whether that is stored; False if this process is not the owner any more.

        Raises:
            StoreError: the database is unavailable.
        """
        refusal = self._refusal(event, answer, attempts=1)
        feed, is_stored = self._feed, False
        self._handed_over[event.stream] = event.position  # counts while it is being stored
        try:
            async with feed.database.transaction() as tx:
                is_stored = await waiting_streams.add(tx, feed.key, feed.owner, refusal)
        except StoreError:
            is_stored, self._must_look = False, True  # it may be stored: the commit is unknown
            raise
        finally:
            if not is_stored:
                del self._handed_over[event.stream]
        return is_stored

    def turn_failed(self) -> None:
        """Look at what is stored, also if no stream is known to wait."""
        self._must_look = True

    async def acquire(self) -> bool:
        """Return True: whether this process is the owner is asked with each read."""
        return True

    async def follow(self, stop: asyncio.Event) -> None:
        """Deliver the events of waiting streams when they are due, until *stop* is set."""
        while not stop.is_set():
            waiting = await self._due()
            async with asyncio.TaskGroup() as tasks:
                for each in waiting:
                    tasks.create_task(self._try_to_deliver(each, stop))
            if not waiting or self._endpoint.is_paused:
                await wait_for_event(stop, self._settings.event_poll_interval_max)

    async def _due(self) -> list[WaitingStream]:
        if self._endpoint.is_paused or not (self._handed_over or self._must_look):
            return []
        feed, limit = self._feed, self._settings.webhook_concurrency
        async with feed.database.transaction() as tx:
            found = await waiting_streams.due(tx, feed.key, feed.owner, limit)
        self._must_look = False
        return found

    async def _try_to_deliver(self, waiting: WaitingStream, stop: asyncio.Event) -> None:
        try:
            await self._deliver(waiting, stop)
        except StoreError as error:
            # What was delivered and is not stored is sent again.
            self._emit(DatabaseUnavailable(operation=Operation.FEED, problem=str(error)))
            self._must_look = True

    async def _deliver(self, waiting: WaitingStream, stop: asyncio.Event) -> None:
        """Deliver the events of a stream in their order, until one fails or none is left."""
        while True:
            handed_over = self._handed_over.get(waiting.stream, 0)
            page = await self._read(waiting)
            undelivered = [each for each in page if each.position >= waiting.next_position]
            events = [each for each in undelivered if each.position <= handed_over]
            delivered = 0
            for event in filter(self._is_selected, events):
                if stop.is_set() or not await self._send(waiting, event):
                    await self._move(waiting, event.position, event.version, delivered)
                    return
                delivered += 1
            if events:
                # A page has whole versions: when it is delivered, the next one begins after it.
                is_whole = events[-1] is page[-1]
                version = events[-1].version + is_whole
                moved = await self._move(waiting, events[-1].position + 1, version, delivered)
                if moved is None:
                    return
                waiting = moved
            elif page and not undelivered:
                waiting = replace(waiting, next_version=page[-1].version + 1)
            elif handed_over == self._handed_over.get(waiting.stream, 0):
                await self._leave(waiting)
                return

    async def _read(self, waiting: WaitingStream) -> list[Recorded]:
        """Read the next page of a stream; it may begin with events that are delivered."""
        feed = self._feed
        async with feed.database.transaction() as tx:
            return await log_page.read_stream(
                tx, feed.log, waiting.stream, waiting.next_version - 1, self._settings
            )

    def _is_selected(self, event: Recorded) -> bool:
        types = self._feed.selected.types
        return types is None or event.type in types

    async def _send(self, waiting: WaitingStream, event: Recorded) -> bool:
        """Send an event; False if it has to be sent again."""
        start_by = asyncio.get_running_loop().time() + self._settings.webhook_timeout
        answer = await self._endpoint.deliver(event, start_by)
        if answer.verdict in (Verdict.REFUSED, Verdict.GONE, Verdict.UNSENDABLE):
            await self._fail(waiting, event, answer)
        return answer.verdict is Verdict.DELIVERED

    async def _fail(self, waiting: WaitingStream, event: Recorded, answer: Answer) -> None:
        is_first = event.position != waiting.next_position
        refusal = self._refusal(event, answer, attempts=1 if is_first else waiting.attempts + 1)
        async with self._feed.database.transaction() as tx:
            is_dead = await waiting_streams.fail(tx, self._feed.key, waiting, refusal)
        if is_dead:
            self._emit(
                FeedEventDeadLettered(
                    feed=self._feed.key.name,
                    sink=self._feed.key.sink,
                    position=event.position,
                    stream=event.stream,
                    event_type=event.type,
                    problem=refusal.problem,
                )
            )

    async def _move(
        self, waiting: WaitingStream, position: int, version: int, delivered: int
    ) -> WaitingStream | None:
        """Save how far a stream has come, and report it; None if an operator has moved it."""
        if position == waiting.next_position:
            return waiting
        moved = replace(waiting, next_position=position, next_version=version, attempts=0)
        async with self._feed.database.transaction() as tx:
            if not await waiting_streams.advance(tx, self._feed.key, waiting, moved):
                return None
        if delivered:
            feed, sink = self._feed.key.name, self._feed.key.sink
            self._emit(FeedEventsPassed(feed=feed, sink=sink, published=delivered, skipped=0))
        return moved

    async def _leave(self, waiting: WaitingStream) -> None:
        """Let the feed publish the events of a stream itself again."""
        # First of all: what the feed hands over from now on would not be read any more.
        self._handed_over.pop(waiting.stream, None)
        async with self._feed.database.transaction() as tx:
            await waiting_streams.remove(tx, self._feed.key, waiting)

    def _refusal(self, event: Recorded, answer: Answer, attempts: int) -> Refusal:
        is_final = answer.verdict is not Verdict.REFUSED
        return Refusal(
            event,
            self._endpoint.describe(answer.problem),
            delay=self._backoff.delay(attempts - 1, random()),  # noqa: S311 - it spreads retries
            timeout=0.0 if is_final else self._settings.webhook_retry_timeout,
        )
