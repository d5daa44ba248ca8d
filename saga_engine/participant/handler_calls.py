"""
Calls of the user's handlers, each in a task of its own.

What a handler does to its task has no effect outside it: a handler may cancel its task, ignore a
cancellation, or raise SystemExit, which asyncio would otherwise raise out of the event loop. A call
that is cancelled has `grace_period` seconds to end. After that it is abandoned: it continues, and
the engine does not wait for it.

`saga_engine.containment` limits what a handler can do to other tasks and to the event loop.
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

    Args:
        grace_period: seconds that a cancelled call has to end.
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
            call: identifies this call; it becomes the value of CURRENT_CALL.
            coroutine: the call of the handler.
            on_abandoned: called with that task if the caller is cancelled and the task does not
                end within the grace period.
        """
        context = copy_context()
        context.run(CURRENT_CALL.set, call)
        loop = asyncio.get_running_loop()
        finished = loop.create_future()
        task = loop.create_task(_run_and_signal(coroutine, finished), context=context)
        self._finished_signals[task] = finished
        task.add_done_callback(self._on_task_done)
        try:
            await finished  # not the task: a cancellation of the caller would cancel it
        except asyncio.CancelledError:
            task.cancel()
            try:
                await asyncio.wait((task,), timeout=self.grace_period)
            finally:
                if not task.done():
                    on_abandoned(task)
            raise
        if task.cancelled():  # not by the engine: another handler has cancelled all tasks
            coroutine.close()  # it may not have started
            raise RuntimeError
        return task.result()

    def _on_task_done(self, task: Task) -> None:
        # For a task that was cancelled before it started: it never reaches _run_and_signal.
        _signal_finished(self._finished_signals.pop(task))


async def _run_and_signal(coroutine: Coroutine[Any, Any, T], finished: asyncio.Future[None]) -> T:
    """Signal the end one iteration of the event loop earlier than a callback of the task would."""
    try:
        return await coroutine
    finally:
        _signal_finished(finished)


def _signal_finished(finished: asyncio.Future[None]) -> None:
    if not finished.done():
        finished.set_result(None)
