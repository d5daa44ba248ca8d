"""
How a process that serves ends: the first signal drains, the second exits, and time has a last word.

SIGTERM, SIGINT and SIGHUP (unless it was ignored, as `nohup` does) drain. The handlers are the
interpreter's and not the event loop's, so that the second signal works even when the user's code
keeps the loop busy. A process that has not drained when the time for it is over is ended by a
thread of its own; if not even that runs, because code in C holds the interpreter, by its overseer
(see `oversight`). After it has drained, threads and executors that users left behind have LEAVING
seconds to end, within `shutdown_timeout` if a signal began it.
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

from saga_engine.cli.exit_status import message_and_exit_code, print_failure
from saga_engine.containment import ReportCallback, guard_event_loop, run_until_done
from saga_engine.errors import ProcessCancelled
from saga_engine.shutdown import SHUTDOWN_RESERVE, ShutdownSchedule
from saga_engine.telemetry.events import describe_error

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run_contained(main: Coroutine[Any, Any, None], report: ReportCallback) -> None:
    """
    Run *main* on a loop of its own, on which code of users cannot stop it.

    Args:
        report: called with what such code has tried.

    Raises:
        ProcessDisturbed: *main* was cancelled all the same.
    """

    def report_disturbance(error: BaseException) -> None:
        stopped = isinstance(error, RuntimeError)
        problem = (
            "The event loop was stopped"
            if stopped
            else f"A callback raised {describe_error(error)}"
        )
        report(None, f"{problem}. The loop goes on.")

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        with guard_event_loop(report, loop, owns_loop=True):
            task = loop.create_task(main)
            try:
                run_until_done(loop, task, report_disturbance)
            except asyncio.CancelledError:
                raise ProcessCancelled(
                    "Code of a handler or a mapping cancelled the process from outside of its own"
                    " context. The process ends, so that it is started again. The last lines of the"
                    " log name what was in hand; let that code cancel its own tasks only."
                ) from None


def exit_on_stop_signals() -> None:
    """
    Have the signals that stop a process do so from now on, until others handle them.

    The kernel drops them for the first process of a container unless it has handlers of its own, so
    that one which is told to stop while it imports the user's modules would go on. In any other
    process the default ends even code in C.
    """
    if os.getpid() != 1 or threading.current_thread() is not threading.main_thread():
        return
    for number in _STOP_SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, lambda number, _: os._exit(128 + number))


class ForcedExit:
    """
    The end of a process, kept by a thread that was started while there still were threads.

    Args:
        drain: the moments after the first signal; None: only `after` ends it.
        overdue: called, in another thread, before it ends because a signal was that long ago.
    """

    def __init__(self, deadlines: ShutdownSchedule | None, on_timeout: Callable[[], None]) -> None:
        self._deadlines = deadlines
        self._on_timeout = on_timeout
        self._signaled = threading.Event()
        self._exit_code: int | None = None
        self._report_error: Callable[[], None] = lambda: None
        self._signal_number = 0
        self.first_signal_at: float | None = None
        """When the first signal came, on the monotonic clock."""
        if deadlines is not None:
            _start_thread(lambda: self._enforce_deadlines(deadlines))

    def on_signal(self, signal_number: int) -> None:
        """Count from now on, because that signal came."""
        self.first_signal_at = time.monotonic()
        self._signal_number = signal_number
        self._signaled.set()

    def exit_after(self, seconds: float, exit_code: int, report_error: Callable[[], None]) -> None:
        """
        End with *code* that many seconds from now, or earlier where `shutdown_timeout` is over.

        Args:
            say: called before that, to say why, if the main thread has not ended the process.
        """
        self._exit_code = exit_code
        self._report_error = report_error

        def exit_process() -> None:
            time.sleep(seconds)
            with suppress(BaseException):
                report_error()
            os._exit(exit_code)

        if self._deadlines is not None:
            _start_thread(exit_process)

    def _enforce_deadlines(self, deadlines: ShutdownSchedule) -> None:
        self._signaled.wait()
        time.sleep(deadlines.close_deadline)
        _start_thread(self._on_timeout if self._exit_code is None else self._report_error)
        time.sleep(deadlines.exit_deadline - deadlines.close_deadline)
        os._exit(128 + self._signal_number if self._exit_code is None else self._exit_code)


def _start_thread(work: Callable[[], object]) -> None:
    def ignore_errors() -> None:
        with suppress(BaseException):
            work()

    with suppress(RuntimeError):  # no thread is to be had: the overseer does it
        threading.Thread(target=ignore_errors, name="saga-engine-exit", daemon=True).start()


async def run_until_signaled(
    run: Callable[[asyncio.Event], Awaitable[None]],
    *,
    shutdown_timeout: float | None = None,
    on_timeout: Callable[[], None] = lambda: None,
    on_signal: Callable[[], None] = lambda: None,
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
    forced_exit = ForcedExit(
        None if shutdown_timeout is None else ShutdownSchedule(shutdown_timeout), on_timeout
    )
    signaled = False

    def handle_signal(number: int, _frame: FrameType | None) -> None:
        nonlocal signaled
        if signaled:
            os._exit(128 + number)
        signaled = True
        forced_exit.on_signal(number)
        on_signal()
        loop.call_soon_threadsafe(stop.set)

    previous_handlers = {number: signal.getsignal(number) for number in _STOP_SIGNALS}
    handled_signals = [
        each
        for each in _STOP_SIGNALS
        if each != signal.SIGHUP or previous_handlers[each] != signal.SIG_IGN
    ]
    for number in handled_signals:
        signal.signal(number, handle_signal)
    try:
        await run(stop)
    finally:
        forced_exit.exit_after(SHUTDOWN_RESERVE, *_exit_code_and_report(sys.exc_info()[1]))
        for number in handled_signals:
            signal.signal(number, previous_handlers[number])


def _exit_code_and_report(error: BaseException | None) -> tuple[int, Callable[[], None]]:
    """Give the exit code after *error*, and what says why if the main thread no longer can."""
    if error is None:
        return 0, lambda: None
    exit_error = error

    def report_error() -> None:
        print_failure(exit_error)

    return message_and_exit_code(exit_error)[1], report_error
