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

from saga_engine.containment import CALL

T = TypeVar("T")

Task: TypeAlias = asyncio.Task[Any]


class Calls:
    """
    The calls of one participant in one process.

    `grace` is how many seconds a call that was cancelled may take to end.
    """

    def __init__(self, grace: float) -> None:
        self.grace = grace
        self._ends: dict[Task, asyncio.Future[None]] = {}

    async def run(
        self, name: object, work: Coroutine[Any, Any, T], abandon: Callable[[Task], None]
    ) -> T:
        """
        Run a coroutine in a task of its own.

        Args:
            name: an object of this call alone, which says what it is; the value of CALL.
            abandon: called with that task when this is cancelled and the task does not end.
        """
        context = copy_context()
        context.run(CALL.set, name)
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        task = loop.create_task(_until_ended(work, ended), context=context)
        self._ends[task] = ended
        task.add_done_callback(self._note)
        try:
            await ended  # and not the task, to which a cancellation would be passed on
        except asyncio.CancelledError:
            task.cancel()
            try:
                await asyncio.wait((task,), timeout=self.grace)
            finally:
                if not task.done():
                    abandon(task)
            raise
        if task.cancelled():  # which is not ours: another handler has cancelled all tasks
            work.close()  # it may not even have begun
            raise RuntimeError
        return task.result()

    def _note(self, task: Task) -> None:
        _end(self._ends.pop(task))  # for a task that was cancelled before it began


async def _until_ended(work: Coroutine[Any, Any, T], ended: asyncio.Future[None]) -> T:
    """Tell of the end a turn of the event loop earlier than a callback of the task would."""
    try:
        return await work
    finally:
        _end(ended)


def _end(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)
