"""
How a process that serves ends: the first signal drains, the second exits, and time has a last word.

SIGTERM, SIGINT and SIGHUP (unless it was ignored, as `nohup` does) drain. The handlers are the
interpreter's and not the event loop's, so that the second signal works even when the user's code
keeps the loop busy. A process that has not drained when the time for it is over is ended by a
thread of its own; if not even that runs, because code in C holds the interpreter, by its overseer
(see `oversight`). After it has drained, threads and executors that users left behind have LEAVING
seconds to end, within `drain` if a signal began it.
"""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from types import FrameType
from typing import Any

from saga_engine.cli.exit_status import failed, verdict_of
from saga_engine.containment import Report, contained, run_on
from saga_engine.errors import ProcessDisturbed
from saga_engine.shutdown import LEAVING, Drain
from saga_engine.telemetry.events import described

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def serve(main: Coroutine[Any, Any, None], report: Report) -> None:
    """
    Run *main* on a loop of its own, on which code of users cannot stop it.

    Args:
        report: called with what such code has tried.

    Raises:
        ProcessDisturbed: *main* was cancelled all the same.
    """

    def disturbed(error: BaseException) -> None:
        stopped = isinstance(error, RuntimeError)
        what = "The event loop was stopped" if stopped else f"A callback raised {described(error)}"
        report(None, f"{what}. The loop goes on.")

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        with contained(report, loop, whole=True):
            work = loop.create_task(main)
            try:
                run_on(loop, work, disturbed)
            except asyncio.CancelledError:
                raise ProcessDisturbed(
                    "Code of a handler or a mapping cancelled the process from outside of its own"
                    " context. The process ends, so that it is started again. The last lines of the"
                    " log name what was in hand; let that code cancel its own tasks only."
                ) from None


def end_at_once() -> None:
    """
    Have the signals that stop a process do so from now on, until others handle them.

    The kernel drops them for the first process of a container unless it has handlers of its own, so
    that one which is told to stop while it imports the user's modules would go on. In any other
    process the default ends even code in C.
    """
    if os.getpid() != 1 or threading.current_thread() is not threading.main_thread():
        return
    for number in _SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, lambda number, _: os._exit(128 + number))


class Ending:
    """
    The end of a process, kept by a thread that was started while there still were threads.

    Args:
        drain: the moments after the first signal; None: only `after` ends it.
        overdue: called, in another thread, before it ends because a signal was that long ago.
    """

    def __init__(self, drain: Drain | None, overdue: Callable[[], None]) -> None:
        self._drain = drain
        self._overdue = overdue
        self._told = threading.Event()
        self._finished: int | None = None
        self._say: Callable[[], None] = lambda: None
        self._number = 0
        self.began: float | None = None
        """When the first signal came, on the monotonic clock."""
        if drain is not None:
            _thread(lambda: self._drained(drain))

    def begin(self, number: int) -> None:
        """Count from now on, because that signal came."""
        self.began = time.monotonic()
        self._number = number
        self._told.set()

    def after(self, seconds: float, code: int, say: Callable[[], None]) -> None:
        """
        End with *code* that many seconds from now, or earlier where `drain` is over.

        Args:
            say: called before that, to say why, if the main thread has not ended the process.
        """
        self._finished = code
        self._say = say

        def end() -> None:
            time.sleep(seconds)
            with suppress(BaseException):
                say()
            os._exit(code)

        if self._drain is not None:
            _thread(end)

    def _drained(self, drain: Drain) -> None:
        self._told.wait()
        time.sleep(drain.left)
        _thread(self._overdue if self._finished is None else self._say)
        time.sleep(drain.ended - drain.left)
        os._exit(128 + self._number if self._finished is None else self._finished)


def _thread(work: Callable[[], object]) -> None:
    def quietly() -> None:
        with suppress(BaseException):
            work()

    with suppress(RuntimeError):  # no thread is to be had: the overseer does it
        threading.Thread(target=quietly, name="saga-engine end", daemon=True).start()


async def until_told(
    run: Callable[[asyncio.Event], Awaitable[None]],
    *,
    drain: float | None = None,
    overdue: Callable[[], None] = lambda: None,
    began: Callable[[], None] = lambda: None,
) -> None:
    """
    Run until *run* returns; the event it gets is set by the first signal.

    Args:
        drain: seconds after the first signal within which the process ends with 128 and the
            signal's number, whatever it does; None: never.
        overdue: called in another thread before it ends so, to say it in the log.
        began: called at the first signal.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    ending = Ending(None if drain is None else Drain(drain), overdue)
    told = False

    def hear(number: int, _frame: FrameType | None) -> None:
        nonlocal told
        if told:
            os._exit(128 + number)
        told = True
        ending.begin(number)
        began()
        loop.call_soon_threadsafe(stop.set)

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    heard = [each for each in _SIGNALS if each != signal.SIGHUP or before[each] != signal.SIG_IGN]
    for number in heard:
        signal.signal(number, hear)
    try:
        await run(stop)
    finally:
        ending.after(LEAVING, *_ending(sys.exc_info()[1]))
        for number in heard:
            signal.signal(number, before[number])


def _ending(error: BaseException | None) -> tuple[int, Callable[[], None]]:
    """Give the exit code after *error*, and what says why if the main thread no longer can."""
    if error is None:
        return 0, lambda: None
    ending = error

    def say() -> None:
        failed(ending)

    return verdict_of(ending)[1], say
