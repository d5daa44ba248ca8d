"""
Which commands form a batch, and when it starts.

Without another batch, a command starts one at once, with all that have arrived with it. During a
batch further commands wait for its end, as in Nagle's algorithm (RFC 896), or until they fill the
next one or have waited for `participant_batch_wait` seconds. So load makes batches larger, and a
slow batch holds no commands back while there are free slots. A batch uses one slot.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from saga_engine.participant.barrier import CommandResult
from saga_engine.participant.batch_executor import BatchExecutor, BatchResult, NotExecuted
from saga_engine.participant.handler_calls import Task
from saga_engine.protocol.command import ReceivedCommand
from saga_engine.settings import Settings


@dataclass(frozen=True, slots=True)
class _WaitingCommand:
    received: ReceivedCommand
    can_start: Callable[[], bool]
    result: asyncio.Future[CommandResult | None]


class CommandBatches:
    """
    The batches of one participant in one process.

    Args:
        executor: executes a batch.
        slots: of all handlers of the process.
        settings: how long commands wait for others.
    """

    def __init__(
        self, executor: BatchExecutor, slots: asyncio.Semaphore, settings: Settings
    ) -> None:
        self._executor = executor
        self._slots = slots
        self._max_wait = settings.participant_batch_wait
        self._waiting: deque[_WaitingCommand] = deque()
        self._running_count = 0
        self._tasks: asyncio.TaskGroup
        self._release_slot: Callable[[Task | None], None]
        self._check_handle: asyncio.Handle | None = None
        self._wait_handle: asyncio.TimerHandle | None = None

    def start(self, tasks: asyncio.TaskGroup, release_slot: Callable[[Task | None], None]) -> None:
        """
        Run batches from now on.

        Args:
            tasks: the group of their tasks.
            release_slot: frees a slot once a handler that was abandoned has ended.
        """
        self._tasks, self._release_slot = tasks, release_slot

    async def execute(
        self, received: ReceivedCommand, can_start: Callable[[], bool]
    ) -> CommandResult | None:
        """
        Execute a command in one of the next batches.

        Args:
            can_start: whether it must still be executed, asked at the start of its batch.

        Returns:
            None if it must be executed alone, or must not be executed here.
        """
        result: asyncio.Future[CommandResult | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_WaitingCommand(received, can_start, result))
        self._check_soon()
        return await result

    def _check_soon(self) -> None:
        """Check after this iteration of the event loop, in which further commands may arrive."""
        if self._check_handle is None:
            self._check_handle = asyncio.get_running_loop().call_soon(self._check)

    def _check(self) -> None:
        self._check_handle = None
        self._drop_cancelled()
        if not self._waiting:
            return
        if not self._running_count or len(self._waiting) >= self._executor.max_size:
            self._start_batch()
        elif self._wait_handle is None:
            loop = asyncio.get_running_loop()
            self._wait_handle = loop.call_later(self._max_wait, self._start_batch)

    def _start_batch(self) -> None:
        if self._wait_handle is not None:
            self._wait_handle.cancel()
            self._wait_handle = None
        self._drop_cancelled()
        if self._waiting:
            self._running_count += 1
            self._tasks.create_task(self._run_batch())

    def _drop_cancelled(self) -> None:
        """Forget the commands whose tasks were cancelled, as all are when the process ends."""
        while self._waiting and self._waiting[0].result.done():
            self._waiting.popleft()

    async def _run_batch(self) -> None:
        try:
            await self._slots.acquire()
            batch = self._take_batch()
            if self._waiting:
                self._check_soon()  # what this batch has no room for must not wait for its end
            abandoned_task: Task | None = None
            try:
                if batch:
                    abandoned_task = await self._execute_batch(batch)
            finally:
                self._release_slot(abandoned_task)
        finally:
            self._running_count -= 1
            self._check_soon()

    def _take_batch(self) -> list[_WaitingCommand]:
        """Take what waits, as late as possible; what must not start leaves the batches."""
        batch: list[_WaitingCommand] = []
        while self._waiting and len(batch) < self._executor.max_size:
            waiting = self._waiting.popleft()
            if waiting.result.done():
                continue
            if waiting.can_start():
                batch.append(waiting)
            else:
                waiting.result.set_result(None)
        return batch

    async def _execute_batch(self, batch: list[_WaitingCommand]) -> Task | None:
        """Execute a batch; return the task of a handler that still runs after its timeout."""
        results: list[BatchResult] = [NotExecuted.ALONE] * len(batch)
        try:
            results = [*await self._executor.execute([each.received for each in batch])]
        finally:
            later = [
                each
                for each, result in zip(batch, results, strict=True)
                if not self._settle(each, result)
            ]
            self._waiting.extendleft(reversed(later))
        tasks = (each.abandoned_task for each in results if isinstance(each, CommandResult))
        return next((task for task in tasks if task is not None), None)

    def _settle(self, waiting: _WaitingCommand, result: BatchResult) -> bool:
        """Hand over the result of a command; False if it has none and joins the next batch."""
        if result is NotExecuted.LATER:
            return False
        if not waiting.result.done():
            waiting.result.set_result(result if isinstance(result, CommandResult) else None)
        return True
