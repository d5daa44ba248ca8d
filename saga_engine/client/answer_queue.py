"""
The client's own queue, and who waits for what in it.

Answers are told apart by their correlation id, announcements by their run. What nobody waits for
(any more) is dropped: whatever matters is asked for again.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from types import TracebackType
from typing import Self
from uuid import UUID

from saga_engine.amqp.connection import Link
from saga_engine.amqp.consumer import Consumer
from saga_engine.errors import BrokerUnavailable
from saga_engine.protocol.answer import Answer, Finished, decode_event, finished_binding
from saga_engine.protocol.message import Delivery

AT_ONCE = 100
"""Deliveries held, and read before they are acknowledged; times body_bytes it bounds the memory."""


class Mailbox:
    """Reads `queue`, which the topology of *link* declares; `async with` owns it."""

    def __init__(self, link: Link, queue: str) -> None:
        self.queue = queue
        self._link = link
        self._consumer = Consumer(link, [queue], prefetch=AT_ONCE)
        self._answers: dict[str, asyncio.Future[Answer]] = {}
        self._endings: dict[UUID, set[asyncio.Future[Finished]]] = {}
        self._tasks = asyncio.TaskGroup()
        self._reading: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        await self._consumer.__aenter__()
        await self._tasks.__aenter__()
        self._reading = self._tasks.create_task(self._read())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._reading.cancel()
        await self._tasks.__aexit__(None, None, None)
        await self._consumer.__aexit__(None, None, None)

    @contextmanager
    def answer(self, correlation_id: str) -> Iterator[asyncio.Future[Answer]]:
        """Wait for the answer with that correlation id; the first one counts."""
        waiting: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._answers[correlation_id] = waiting
        try:
            yield waiting
        finally:
            del self._answers[correlation_id]

    @asynccontextmanager
    async def ending(self, run_id: UUID) -> AsyncIterator[asyncio.Future[Finished]]:
        """Wait for the announcement that a run is finished, whoever else waits for the same."""
        waiting: asyncio.Future[Finished] = asyncio.get_running_loop().create_future()
        self._endings.setdefault(run_id, set()).add(waiting)
        binding = finished_binding(self.queue, run_id)
        try:
            with suppress(BrokerUnavailable):  # it is bound when the broker is back
                await self._consumer.bind(binding)
            yield waiting
        finally:
            others = self._endings[run_id]
            others.discard(waiting)
            if not others:
                del self._endings[run_id]
                await self._consumer.unbind(binding)

    async def _read(self) -> None:
        while deliveries := await self._consumer.take(AT_ONCE):
            for delivery in deliveries:
                self._hand_over(delivery)
            await self._consumer.settle(deliveries)

    def _hand_over(self, delivery: Delivery) -> None:
        match decode_event(delivery, self._link.settings):
            case Answer() as answer:
                waiting = self._answers.get(delivery.correlation_id)
                if waiting and not waiting.done():
                    waiting.set_result(answer)
            case Finished() as finished:
                for each in self._endings.get(finished.run_id, ()):
                    if not each.done():
                        each.set_result(finished)
            case _:
                pass  # unreadable: whatever it was, it is asked for again
