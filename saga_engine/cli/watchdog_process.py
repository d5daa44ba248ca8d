"""
Start the watchdog process (see `watchdog`) beside this process, and restart it when it is lost.

This process keeps both ends of the pipe that the interpreter writes signals to, so the pipe
outlives a watchdog. Without a watchdog this process goes on; it tries to start another one with a
backoff from INITIAL_RESTART_DELAY to MAX_RESTART_DELAY.
"""

import asyncio
import ctypes
import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import saga_engine
from saga_engine.call_time_limit import CALL_NOTE_BYTES
from saga_engine.cli.watchdog import FALLBACK_KILL_SIGNAL, STOP_SIGNALS
from saga_engine.settings import Settings
from saga_engine.telemetry.events import Emitter, WatchdogLost, WatchdogRestarted

CHECK_INTERVAL = 1.0
"""Seconds between two checks whether it still runs."""

INITIAL_RESTART_DELAY, MAX_RESTART_DELAY = 1.0, 60.0
"""Seconds before another one is started; doubled while the system cannot start one."""

EXIT_TIMEOUT = 1.0
"""Seconds for the watchdog to exit after the pipe was closed; then it is killed."""


class WatchdogProcess:
    """
    The watchdog process of this process.

    `memory` is where calls of user code are noted; see `call_time_limit`.

    Args:
        settings: of the process.
        process: its number, if it has a supervisor.
        memory_fd: the descriptor of the memory.
        signal_fd: the descriptor from which its signals are read.
    """

    def __init__(
        self, settings: Settings, process: int | None, memory_fd: int, signal_fd: int
    ) -> None:
        self.memory = mmap.mmap(memory_fd, CALL_NOTE_BYTES)
        self._settings = settings
        self._number = process
        self._memory_fd, self._signal_fd = memory_fd, signal_fd
        self._process: subprocess.Popen[bytes] | None = None
        self._shutdown_started_at: float | None = None
        self.problem = self._start()

    def on_shutdown(self) -> None:
        """Note the time of the first stop signal, for a watchdog that is started later."""
        self._shutdown_started_at = time.monotonic()

    async def supervise(self, emit: Emitter) -> None:
        """Restart the watchdog when it is lost, until cancelled; emit one event for each loss."""
        delay = INITIAL_RESTART_DELAY
        while True:
            if self.problem:
                emit(WatchdogLost(problem=self.problem))
                delay = await self._restart(delay)
                emit(WatchdogRestarted())
            started = time.monotonic()
            while not self.problem:
                await asyncio.sleep(CHECK_INTERVAL)
                self.problem = self._exit_problem()
            if time.monotonic() - started > MAX_RESTART_DELAY:
                delay = INITIAL_RESTART_DELAY

    async def _restart(self, delay: float) -> float:
        while True:
            await asyncio.sleep(delay)
            delay = min(MAX_RESTART_DELAY, delay * 2)
            self.problem = self._start()
            if not self.problem:
                return delay

    def _exit_problem(self) -> str:
        """Why it does not run; "" while it runs. This also reaps the child process."""
        assert self._process is not None, "it was started"
        code = self._process.poll()
        return "" if code is None else f"It exited with code {code}."

    def _start(self) -> str:
        """Start one; return the problem, or ""."""
        root = str(Path(saga_engine.__file__).parents[1])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "saga_engine.cli.watchdog"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path},
                pass_fds=(self._memory_fd, self._signal_fd),
                start_new_session=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            return f"It cannot be started: {type(error).__name__}: {error}."
        self._process = process
        assert process.stdin is not None, "it was asked for"
        with suppress(OSError), process.stdin as stdin:  # `supervise` finds one that has exited
            stdin.write(self._config_json())
        return ""

    def _config_json(self) -> bytes:
        settings = self._settings
        url = settings.database_url
        config = {
            "memory_fd": self._memory_fd,
            "signal_fd": self._signal_fd,
            "code_limit": settings.mapping_hard_timeout,
            "shutdown_timeout": settings.shutdown_timeout,
            "shutdown_elapsed": None
            if self._shutdown_started_at is None
            else time.monotonic() - self._shutdown_started_at,
            "process": self._number,
            "settings": {
                "database_url": url.get_secret_value() if url else None,
                "log_format": settings.log_format,
                "log_level": settings.log_level,
            },
        }
        return json.dumps(config).encode()

    def wait_or_kill(self) -> None:
        """Wait until it has exited, after the pipe was closed; kill it after EXIT_TIMEOUT."""
        process = self._process
        if process is None:
            return
        try:
            process.wait(EXIT_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def watchdog_process(settings: Settings, process: int | None = None) -> Iterator[WatchdogProcess]:
    """
    Run a watchdog beside this process until the block ends.

    Args:
        settings: of this process.
        process: its number, if it has a supervisor, for the log.
    """
    with ExitStack() as stack:
        memory_fd = stack.enter_context(_shared_memory_fd(CALL_NOTE_BYTES))
        signal_read_fd, signal_write_fd = os.pipe()
        stack.callback(os.close, signal_read_fd)
        watchdog = WatchdogProcess(settings, process, memory_fd, signal_read_fd)
        stack.callback(watchdog.memory.close)
        stack.callback(watchdog.wait_or_kill)
        stack.callback(os.close, signal_write_fd)
        os.set_blocking(signal_write_fd, False)
        previous_fd = signal.set_wakeup_fd(signal_write_fd, warn_on_full_buffer=False)
        stack.callback(signal.set_wakeup_fd, previous_fd)
        _reset_signals_in_children(stack)
        _handle_fallback_signal()
        yield watchdog


def _reset_signals_in_children(stack: ExitStack) -> None:
    """
    Restore the default signal handling in a child process that user code forks.

    It inherits the pipe, so the watchdog would mistake a signal to the child, such as
    `multiprocessing.Pool` sends, for one to this process. And it inherits handlers that do not end
    it.
    """
    active = [True]
    stack.callback(active.clear)

    def reset_signals() -> None:
        if active:
            signal.set_wakeup_fd(-1)
            for number in (*STOP_SIGNALS, signal.SIGALRM):
                if callable(signal.getsignal(number)):
                    signal.signal(number, signal.SIG_DFL)

    os.register_at_fork(after_in_child=reset_signals)


@contextmanager
def _shared_memory_fd(size: int) -> Iterator[int]:
    """Open a file descriptor of memory that can be shared with a child process."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("saga-engine")
    else:
        descriptor, name = tempfile.mkstemp()
        Path(name).unlink()
    try:
        os.ftruncate(descriptor, size)
        yield descriptor
    finally:
        os.close(descriptor)


def _handle_fallback_signal() -> None:
    """Let the watchdog end this process where SIGKILL cannot; see FALLBACK_KILL_SIGNAL."""
    with suppress(AttributeError, OSError, ValueError):
        libc = ctypes.CDLL(None)
        libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
        libc.signal(int(FALLBACK_KILL_SIGNAL), ctypes.cast(libc["_exit"], ctypes.c_void_p))
