"""
What code of users may do to the event loop that it shares with the engine: nothing to others.

While such code is called, CALL says which call it is, and so it does in the tasks, timers and
threads that the code starts. A task of the engine, or of another call, cannot be cancelled from
there, and the loop cannot be stopped. Tasks that users start are their own: any of their code may
cancel them.

What cannot be prevented: code that blocks the event loop, ends the process or closes its files, and
code that leaves its context on purpose (`contextvars.Context().run`, a bare thread). For a loop
that was stopped all the same see `run_on`, for code that does not return `cli.overseer`.
"""

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")

CALL: ContextVar[Any] = ContextVar("saga_engine_call", default=None)
"""The call of user code that the current code belongs to; None: it is the engine's."""

Report: TypeAlias = Callable[[Any, str], None]
"""Called with the value of CALL and a sentence when something was prevented; from any thread."""


def ignore(_call: Any, _problem: str) -> None:
    """Report nothing."""


class TaskExited(Exception):
    """A task that a handler started raised SystemExit or KeyboardInterrupt, which is the cause."""


class GuardedTask(asyncio.Task[Any]):
    """A task that only the engine can cancel, and the call whose code runs in it."""

    belongs_to: Any = None
    report: Report = staticmethod(ignore)

    def cancel(self, msg: Any | None = None) -> bool:
        """As of every task; False, and nothing is done, for code of another call."""
        caller = CALL.get()
        if caller is not None and caller is not self.belongs_to and not self.done():
            self.report(caller, "It cancelled a task that is not its own. Nothing was cancelled.")
            return False
        return super().cancel(msg)


@contextmanager
def contained(
    report: Report = ignore, loop: asyncio.AbstractEventLoop | None = None, *, whole: bool = False
) -> Iterator[None]:
    """
    Guard a loop, by default the running one, and the tasks that are made on it from now on.

    A loop that is guarded already stays as it is; it is guarded until the last of them has ended.

    Args:
        whole: the process is the engine's, so that the loop and each task that no call has started
            are its own. Otherwise a program shares the loop, and only calls are guarded from each
            other.
    """
    loop = loop or asyncio.get_running_loop()
    factory = loop.get_task_factory()
    if not isinstance(factory, _Factory):
        factory = _Factory(loop, report, whole=whole)
        factory.install()
    factory.users += 1
    try:
        yield
    finally:
        factory.users -= 1
        if not factory.users:
            factory.remove()


class _Factory:
    """Makes the tasks of a loop; guarded ones where the engine asks, or `Calls` for a handler."""

    def __init__(self, loop: asyncio.AbstractEventLoop, report: Report, *, whole: bool) -> None:
        self.users = 0
        """How many `contained` go on."""
        self._loop = loop
        self._before: Any = loop.get_task_factory()
        self._stop = loop.stop
        self._report = report
        self._whole = whole

    def install(self) -> None:
        """Guard the loop."""
        self._loop.set_task_factory(self)
        if self._whole:
            self._loop.stop = self._stop_it  # type: ignore[method-assign]  # of this one object

    def remove(self) -> None:
        """Leave the loop as it was."""
        self._loop.set_task_factory(self._before)
        if self._whole:
            del self._loop.stop

    def _stop_it(self) -> None:
        if (caller := CALL.get()) is None:
            self._stop()
        else:
            self._report(caller, "It stopped the event loop. The loop goes on.")

    def __call__(self, loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> Any:
        if CALL.get() is not None:
            return self._of_a_user(loop, work, options)
        context = options.get("context")
        call = None if context is None else context.get(CALL)
        if call is None and not self._whole:
            return self._made(loop, work, options)
        task = GuardedTask(work, loop=loop, **options)
        task.report, task.belongs_to = self._report, call
        return task

    def _of_a_user(self, loop: Any, work: Any, options: dict[str, Any]) -> Any:
        if inspect.iscoroutine(work):
            work = _without_exit(work)
        return self._made(loop, work, options)

    def _made(self, loop: Any, work: Any, options: dict[str, Any]) -> Any:
        if self._before is not None:
            return self._before(loop, work, **options)
        return asyncio.Task(work, loop=loop, **options)


async def _without_exit(work: Coroutine[Any, Any, T]) -> T:
    try:
        return await work
    except (SystemExit, KeyboardInterrupt) as error:
        raise TaskExited from error


def run_on(
    loop: asyncio.AbstractEventLoop,
    work: "asyncio.Task[T]",
    disturbed: Callable[[BaseException], None],
) -> T:
    """
    Run a loop until *work* is done, whatever stops the loop before that.

    A timer or callback of a user may raise SystemExit, and a bare thread may stop the loop.

    Args:
        disturbed: called with what stopped it each time.
    """
    while True:
        try:
            return loop.run_until_complete(work)
        except SystemExit as error:
            if work.done():
                raise
            disturbed(error)
        except RuntimeError as error:
            if work.done() or loop.is_closed():
                raise
            disturbed(error)
