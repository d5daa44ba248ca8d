"""
The client's own queue, and the waiters for what arrives in it.

Answers are identified by their correlation id, announcements by their run. A message without a
waiter is dropped: a client that still needs it asks again.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from uuid import UUID

from saga_engine.amqp.connection import SupervisedConnection
from saga_engine.amqp.consumer import Consumer
from saga_engine.errors import BrokerUnavailable
from saga_engine.lifecycle import AsyncResource
from saga_engine.protocol.answer import (
    Answer,
    decode_client_message,
    run_finished_binding,
)
from saga_engine.protocol.message import Delivery
from saga_engine.protocol.run_result import RunResult

PREFETCH = 100
"""
Unacknowledged deliveries; multiplied by max_body_bytes it limits the memory.
"""


class AnswerQueue(AsyncResource):
    """Reads a queue, which the topology of *connection* declares; `async with` owns it."""

    def __init__(self, connection: SupervisedConnection, queue: str) -> None:
        self.queue = queue
        self._connection = connection
        self._consumer = Consumer(connection, [queue], prefetch=PREFETCH)
        self._answer_waiters: dict[str, asyncio.Future[Answer]] = {}
        self._finished_waiters: dict[UUID, set[asyncio.Future[RunResult]]] = {}

    async def _open(self, resources: AsyncExitStack) -> None:
        await resources.enter_async_context(self._consumer)
        tasks = await resources.enter_async_context(asyncio.TaskGroup())
        read_task = tasks.create_task(self._read())
        resources.callback(read_task.cancel)

    @contextmanager
    def expect_answer(self, correlation_id: str) -> Iterator[asyncio.Future[Answer]]:
        """Expect the answer with a correlation id; only the first one counts."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._answer_waiters[correlation_id] = future
        try:
            yield future
        finally:
            del self._answer_waiters[correlation_id]

    @asynccontextmanager
    async def expect_finished(self, run_id: UUID) -> AsyncIterator[asyncio.Future[RunResult]]:
        """Expect the announcement that a run is finished; a run may have several waiters."""
        future: asyncio.Future[RunResult] = asyncio.get_running_loop().create_future()
        self._finished_waiters.setdefault(run_id, set()).add(future)
        binding = run_finished_binding(self.queue, run_id)
        try:
            with suppress(BrokerUnavailable):  # it is bound when the connection is back
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
            case RunResult() as finished:
                for each in self._finished_waiters.get(finished.run_id, ()):
                    if not each.done():
                        each.set_result(finished)
            case _:
                pass  # unreadable: the client asks again
