"""
How a worker or participant process ends: graceful shutdown, and an exit if that takes too long.

A signal sets the event that `Worker.run` and `ParticipantService.run` wait for; their loops then
shut down on the schedule of `saga_engine.shutdown`, as `saga_engine.engine_process` applies it.

The first SIGTERM, SIGINT or SIGHUP (unless SIGHUP was ignored, as under `nohup`) starts a graceful
shutdown; the second exits at once. The handlers are set with `signal.signal` and not on the event
loop, so that the second signal works even if user code blocks the loop. A thread of this process
exits it when `shutdown_timeout` is over. If that thread cannot run, because code in C holds the
interpreter lock, the watchdog process ends it (see `watchdog_process`). After the shutdown, threads
and executors that user code left running have SHUTDOWN_RESERVE seconds to end, within
`shutdown_timeout` if a signal started the shutdown.
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
    Run *main* on an event loop that user code cannot stop.

    Args:
        report: called with what user code tried to do.

    Raises:
        ProcessCancelled: *main* was cancelled from outside the guarded calls.
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
                    "Code of a handler or a mapping cancelled the main task of the process. The"
                    " process exits, so that a supervisor can restart it. The last lines of the log"
                    " name the work in progress; that code must cancel only its own tasks."
                ) from None


def exit_on_stop_signals() -> None:
    """
    Let stop signals end this process while it imports the user's modules, if it has process id 1.

    The kernel drops signals to process 1 of a container unless the process has a handler for them.
    Any other process keeps the default action, which ends even code in C.
    """
    if os.getpid() != 1 or threading.current_thread() is not threading.main_thread():
        return
    for number in _STOP_SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, lambda number, _: os._exit(128 + number))


def handled_signals() -> list[signal.Signals]:
    """The stop signals; SIGHUP only if it is not ignored, as it is under `nohup`."""
    return [
        number
        for number in _STOP_SIGNALS
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
    ]


class ForcedExit:
    """
    Exits the process from a thread that is started early, before a thread limit can prevent it.

    Args:
        deadlines: of the shutdown, after the first signal; None: only `exit_after` exits.
        on_timeout: called, in another thread, before the process exits because of a deadline.
    """

    def __init__(self, deadlines: ShutdownSchedule | None, on_timeout: Callable[[], None]) -> None:
        self._deadlines = deadlines
        self._on_timeout = on_timeout
        self._signaled = threading.Event()
        self._exit_code: int | None = None
        self._report_error: Callable[[], None] = lambda: None
        self._signal_number = 0
        self.first_signal_at: float | None = None
        """Time of the first signal, on the monotonic clock."""
        if deadlines is not None:
            _start_thread(lambda: self._enforce_deadlines(deadlines))

    def on_signal(self, signal_number: int) -> None:
        """Start the deadlines: the first signal arrived."""
        self.first_signal_at = time.monotonic()
        self._signal_number = signal_number
        self._signaled.set()

    def exit_after(self, seconds: float, exit_code: int, report_error: Callable[[], None]) -> None:
        """
        Exit with *exit_code* after *seconds*, or earlier when `shutdown_timeout` is over.

        Args:
            report_error: called before that, if the main thread has not ended the process.
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

    with suppress(RuntimeError):  # the thread limit is reached: the watchdog process does it
        threading.Thread(target=ignore_errors, name="saga-engine-exit", daemon=True).start()


async def run_until_signaled(
    run: Callable[[asyncio.Event], Awaitable[None]],
    *,
    shutdown_timeout: float | None = None,
    on_timeout: Callable[[], None] = lambda: None,
    on_signal: Callable[[], None] = lambda: None,
    exit_at_second_signal: bool = True,
) -> None:
    """
    Run until *run* returns; the first signal sets the event that *run* gets.

    Args:
        shutdown_timeout: seconds after the first signal after which the process exits with 128 plus
            the signal number; None: no limit.
        on_timeout: called in another thread before that exit, to log it.
        on_signal: called at the first signal.
        exit_at_second_signal: False for a supervised process. The first signal to all processes of
            a service, such as systemd sends, reaches it twice: also through its supervisor, which
            kills it at the second one.
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
            if exit_at_second_signal:
                os._exit(128 + number)
            return
        signaled = True
        forced_exit.on_signal(number)
        on_signal()
        loop.call_soon_threadsafe(stop.set)

    previous_handlers = {number: signal.getsignal(number) for number in handled_signals()}
    for number in previous_handlers:
        signal.signal(number, handle_signal)
    try:
        await run(stop)
    finally:
        forced_exit.exit_after(SHUTDOWN_RESERVE, *_exit_code_and_report(sys.exc_info()[1]))
        for number, previous_handler in previous_handlers.items():
            signal.signal(number, previous_handler)


def _exit_code_and_report(error: BaseException | None) -> tuple[int, Callable[[], None]]:
    """Return the exit code after *error*, and a function that prints the error."""
    if error is None:
        return 0, lambda: None
    exit_error = error

    def report_error() -> None:
        print_failure(exit_error)

    return message_and_exit_code(exit_error)[1], report_error
