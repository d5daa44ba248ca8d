"""
Calls of the user's handlers, each in a task of its own.

What a handler does to its task stays there: it may cancel the task and forget about that, ignore a
cancellation, or raise SystemExit, which asyncio would otherwise let out of the event loop. A call
that is cancelled has `grace` seconds to end. After that it is abandoned: it goes on, and nothing
waits for it.

What a handler does to other tasks and to the loop is contained too, and what cannot be; see
`saga_engine.containment`.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any, TypeAlias, TypeVar

from saga_engine.containment import CURRENT_CALL

T = TypeVar("T")

Task: TypeAlias = asyncio.Task[Any]


class HandlerCalls:
    """
    The calls of one participant in one process.

    `grace` is how many seconds a call that was cancelled may take to end.
    """

    def __init__(self, grace_period: float) -> None:
        self.grace_period = grace_period
        self._finished_signals: dict[Task, asyncio.Future[None]] = {}

    async def run(
        self, call: object, coroutine: Coroutine[Any, Any, T], on_abandoned: Callable[[Task], None]
    ) -> T:
        """
        Run a coroutine in a task of its own.

        Args:
            name: an object of this call alone, which says what it is; the value of CALL.
            abandon: called with that task when this is cancelled and the task does not end.
        """
        context = copy_context()
        context.run(CURRENT_CALL.set, call)
        loop = asyncio.get_running_loop()
        finished = loop.create_future()
        task = loop.create_task(_run_and_signal(coroutine, finished), context=context)
        self._finished_signals[task] = finished
        task.add_done_callback(self._on_task_done)
        try:
            await finished  # and not the task, to which a cancellation would be passed on
        except asyncio.CancelledError:
            task.cancel()
            try:
                await asyncio.wait((task,), timeout=self.grace_period)
            finally:
                if not task.done():
                    on_abandoned(task)
            raise
        if task.cancelled():  # which is not ours: another handler has cancelled all tasks
            coroutine.close()  # it may not even have begun
            raise RuntimeError
        return task.result()

    def _on_task_done(self, task: Task) -> None:
        _signal_finished(
            self._finished_signals.pop(task)
        )  # for a task that was cancelled before it began


async def _run_and_signal(coroutine: Coroutine[Any, Any, T], finished: asyncio.Future[None]) -> T:
    """Tell of the end a turn of the event loop earlier than a callback of the task would."""
    try:
        return await coroutine
    finally:
        _signal_finished(finished)


def _signal_finished(finished: asyncio.Future[None]) -> None:
    if not finished.done():
        finished.set_result(None)
