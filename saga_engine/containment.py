"""
Keeps user code from cancelling the engine's tasks and from stopping the event loop.

The engine calls the user's code (handlers, mapping functions) in its own event loop. CURRENT_CALL
identifies the call, also in the tasks, timers and threads that the code starts. From there, a task
of the engine or of another call cannot be cancelled, and the loop cannot be stopped. A task that
user code has started may be cancelled by any user code.

It cannot prevent code that blocks the event loop, ends the process or closes its files, or that
leaves its context on purpose (`contextvars.Context().run`, a bare thread). `run_until_done` runs a
stopped loop again; `cli.watchdog` ends a process whose code does not return.
"""

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")

CURRENT_CALL: ContextVar[Any] = ContextVar("saga_engine_current_call", default=None)
"""The call of user code that the current code belongs to; None for code of the engine."""

ReportCallback: TypeAlias = Callable[[Any, str], None]
"""Called with the value of CURRENT_CALL and a sentence when something was prevented; from any
thread."""


def ignore_report(_call: Any, _problem: str) -> None:
    """Report nothing."""


class TaskExited(Exception):
    """A task that a handler started raised SystemExit or KeyboardInterrupt: see the cause."""


class GuardedTask(asyncio.Task[Any]):
    """A task that only the engine, and the call whose code runs in it (`owner`), can cancel."""

    owner: Any = None
    report: ReportCallback = staticmethod(ignore_report)

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the task; code of another call cancels nothing and gets False."""
        caller = CURRENT_CALL.get()
        if caller is not None and caller is not self.owner and not self.done():
            self.report(caller, "It cancelled a task that is not its own. Nothing was cancelled.")
            return False
        return super().cancel(msg)


@contextmanager
def guard_event_loop(
    report: ReportCallback = ignore_report,
    loop: asyncio.AbstractEventLoop | None = None,
    *,
    owns_loop: bool = False,
) -> Iterator[None]:
    """
    Guard a loop and the tasks that are created on it from now on.

    Guards may be nested; the loop is guarded until the last one ends.

    Args:
        report: called when something was prevented.
        loop: the loop; by default the running one.
        owns_loop: the process belongs to the engine, so the loop and each task that no call has
            started are guarded. Otherwise the loop is the program's, and calls are only guarded
            from each other.
    """
    loop = loop or asyncio.get_running_loop()
    factory = loop.get_task_factory()
    if not isinstance(factory, _GuardedTaskFactory):
        factory = _GuardedTaskFactory(loop, report, owns_loop=owns_loop)
        factory.install()
    factory.guard_count += 1
    try:
        yield
    finally:
        factory.guard_count -= 1
        if not factory.guard_count:
            factory.remove()


class _GuardedTaskFactory:
    """Creates the tasks of a loop, guarded ones for the engine and for `HandlerCalls`."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, report: ReportCallback, *, owns_loop: bool
    ) -> None:
        self.guard_count = 0
        """The number of `guard_event_loop` blocks that are active."""
        self._loop = loop
        self._previous_factory: Any = loop.get_task_factory()
        self._original_stop = loop.stop
        self._report = report
        self._owns_loop = owns_loop

    def install(self) -> None:
        """Guard the loop."""
        self._loop.set_task_factory(self)
        if self._owns_loop:
            self._loop.stop = self._guarded_stop  # type: ignore[method-assign]  # of this one object

    def remove(self) -> None:
        """Restore the loop."""
        self._loop.set_task_factory(self._previous_factory)
        if self._owns_loop:
            del self._loop.stop

    def _guarded_stop(self) -> None:
        if (caller := CURRENT_CALL.get()) is None:
            self._original_stop()
        else:
            self._report(caller, "It stopped the event loop. The loop goes on.")

    def __call__(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        if CURRENT_CALL.get() is not None:
            return self._make_user_task(loop, coroutine, options)
        context = options.get("context")
        call = None if context is None else context.get(CURRENT_CALL)
        if call is None and not self._owns_loop:
            return self._make_task(loop, coroutine, options)
        task = GuardedTask(coroutine, loop=loop, **options)
        task.report, task.owner = self._report, call
        return task

    def _make_user_task(self, loop: Any, coroutine: Any, options: dict[str, Any]) -> Any:
        if inspect.iscoroutine(coroutine):
            coroutine = _convert_exit(coroutine)
        return self._make_task(loop, coroutine, options)

    def _make_task(self, loop: Any, coroutine: Any, options: dict[str, Any]) -> Any:
        if self._previous_factory is not None:
            return self._previous_factory(loop, coroutine, **options)
        return asyncio.Task(coroutine, loop=loop, **options)


async def _convert_exit(coroutine: Coroutine[Any, Any, T]) -> T:
    try:
        return await coroutine
    except (SystemExit, KeyboardInterrupt) as error:
        raise TaskExited from error


def run_until_done(
    loop: asyncio.AbstractEventLoop,
    task: "asyncio.Task[T]",
    on_stopped: Callable[[BaseException], None],
) -> T:
    """
    Run a loop until a task is done, and start it again if user code stops it before that.

    A timer or callback of the user's may raise SystemExit, and a bare thread may stop the loop.

    Args:
        loop: the loop.
        task: the task to finish.
        on_stopped: called each time with the exception that stopped the loop.
    """
    while True:
        try:
            return loop.run_until_complete(task)
        except SystemExit as error:
            if task.done():
                raise
            on_stopped(error)
        except RuntimeError as error:
            if task.done() or loop.is_closed():
                raise
            on_stopped(error)
