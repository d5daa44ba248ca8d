"""
Calls of the user's handlers, each in a task of its own.

What a handler does to its task stays there: it may cancel the task and forget about that, ignore a
cancellation, or raise SystemExit, which asyncio would otherwise let out of the event loop. A call
that is cancelled has `grace` seconds to end. After that it is abandoned: it goes on, and nothing
waits for it.

What cannot be contained: code that blocks the event loop, a signal, `os._exit`, and SystemExit in
a callback that was given to the loop itself (`call_soon`, `call_later`).
"""

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")

Task: TypeAlias = asyncio.Task[Any]

_IN_CALL: ContextVar[bool] = ContextVar("saga_engine_in_call", default=False)


class TaskExited(Exception):
    """A task that a handler started raised SystemExit or KeyboardInterrupt, which is the cause."""


class Calls:
    """
    The calls of one participant in one process.

    `grace` is how many seconds a call that was cancelled may take to end.
    """

    def __init__(self, grace: float) -> None:
        self.grace = grace
        self._tasks: dict[Task, asyncio.Future[None]] = {}

    async def run(self, work: Coroutine[Any, Any, T], abandon: Callable[[Task], None]) -> T:
        """
        Run a coroutine in a task of its own.

        Args:
            abandon: called with that task when this is cancelled and the task does not end.
        """
        context = copy_context()
        context.run(_IN_CALL.set, True)  # noqa: FBT003 - the value itself
        loop = asyncio.get_running_loop()
        task = loop.create_task(work, context=context)
        ended = loop.create_future()
        self._tasks[task] = ended
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
            raise RuntimeError
        return task.result()

    def _note(self, task: Task) -> None:
        ended = self._tasks.pop(task)
        if not ended.done():
            ended.set_result(None)


@contextmanager
def exits_contained() -> Iterator[None]:
    """Let no task that a handler starts end the event loop of the current thread."""
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()

    def factory(
        loop: asyncio.AbstractEventLoop, work: Any, **options: Any
    ) -> "asyncio.Future[Any]":
        if _IN_CALL.get() and inspect.iscoroutine(work):
            work = _without_exit(work)
        if before is not None:
            return before(loop, work, **options)
        return asyncio.Task(work, loop=loop, **options)

    loop.set_task_factory(factory)
    try:
        yield
    finally:
        loop.set_task_factory(before)


async def _without_exit(work: Coroutine[Any, Any, T]) -> T:
    try:
        return await work
    except (SystemExit, KeyboardInterrupt) as error:
        raise TaskExited from error
