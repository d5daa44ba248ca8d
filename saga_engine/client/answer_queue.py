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

from saga_engine.amqp.connection import SupervisedConnection
from saga_engine.amqp.consumer import Consumer
from saga_engine.errors import BrokerUnavailable
from saga_engine.protocol.answer import (
    Answer,
    RunFinishedMessage,
    decode_client_message,
    run_finished_binding,
)
from saga_engine.protocol.message import Delivery

PREFETCH = 100
"""
Deliveries held, and read before they are acknowledged; times max_body_bytes it bounds the memory.
"""


class AnswerQueue:
    """Reads `queue`, which the topology of *link* declares; `async with` owns it."""

    def __init__(self, connection: SupervisedConnection, queue: str) -> None:
        self.queue = queue
        self._connection = connection
        self._consumer = Consumer(connection, [queue], prefetch=PREFETCH)
        self._answer_waiters: dict[str, asyncio.Future[Answer]] = {}
        self._finished_waiters: dict[UUID, set[asyncio.Future[RunFinishedMessage]]] = {}
        self._task_group = asyncio.TaskGroup()
        self._read_task: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        await self._consumer.__aenter__()
        await self._task_group.__aenter__()
        self._read_task = self._task_group.create_task(self._read())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._read_task.cancel()
        await self._task_group.__aexit__(None, None, None)
        await self._consumer.__aexit__(None, None, None)

    @contextmanager
    def expect_answer(self, correlation_id: str) -> Iterator[asyncio.Future[Answer]]:
        """Wait for the answer with that correlation id; the first one counts."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._answer_waiters[correlation_id] = future
        try:
            yield future
        finally:
            del self._answer_waiters[correlation_id]

    @asynccontextmanager
    async def expect_finished(
        self, run_id: UUID
    ) -> AsyncIterator[asyncio.Future[RunFinishedMessage]]:
        """Wait for the announcement that a run is finished, whoever else waits for the same."""
        future: asyncio.Future[RunFinishedMessage] = asyncio.get_running_loop().create_future()
        self._finished_waiters.setdefault(run_id, set()).add(future)
        binding = run_finished_binding(self.queue, run_id)
        try:
            with suppress(BrokerUnavailable):  # it is bound when the broker is back
                await self._consumer.bind(binding)
            yield future
        finally:
            futures = self._finished_waiters[run_id]
            futures.discard(future)
            if not futures:
                del self._finished_waiters[run_id]
                await self._consumer.unbind(binding)

    async def _read(self) -> None:
        while deliveries := await self._consumer.take(PREFETCH):
            for delivery in deliveries:
                self._dispatch(delivery)
            await self._consumer.acknowledge(deliveries)

    def _dispatch(self, delivery: Delivery) -> None:
        match decode_client_message(delivery, self._connection.settings):
            case Answer() as answer:
                future = self._answer_waiters.get(delivery.correlation_id)
                if future and not future.done():
                    future.set_result(answer)
            case RunFinishedMessage() as finished:
                for each in self._finished_waiters.get(finished.run_id, ()):
                    if not each.done():
                        each.set_result(finished)
            case _:
                pass  # unreadable: whatever it was, it is asked for again
