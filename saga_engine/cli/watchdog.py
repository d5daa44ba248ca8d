"""
The watchdog process: it kills its parent, a worker or a participant, when nothing in it can.

Code in C that does not return holds the interpreter lock: no signal handler, thread or timer of
Python runs. So the parent notes each call of user code in shared memory, and the interpreter writes
each signal that it gets to a pipe. The watchdog reads both. It kills its parent in two cases: one
call takes longer than `mapping_hard_timeout`, or the parent still runs `shutdown_timeout` after its
first signal. In the first case it records the run in PostgreSQL and logs `user_code.hung` before.
It exits when its parent has exited.

Threads record and log, so that neither an unresponsive database nor a slow import delays the kill.
The watchdog adds up the time between its ticks instead of comparing timestamps: at most two ticks
for one, and nothing while its parent is stopped. So a process that was frozen is not mistaken for
one that hangs. Until it acts, it imports only the modules below.
"""

import asyncio
import json
import mmap
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from saga_engine.shutdown import ShutdownSchedule

POLL_INTERVAL = 0.25
"""Seconds between two ticks."""

RECORD_TIMEOUT = 5.0
"""Seconds to record a crash suspect in PostgreSQL; then the parent is killed without it."""

LOG_TIMEOUT = 1.0
"""Seconds to log the call."""

KILL_TIMEOUT = 0.5
"""Seconds for SIGKILL to have its effect, before FALLBACK_KILL_SIGNAL is tried."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

FALLBACK_KILL_SIGNAL = getattr(signal, "SIGRTMAX", signal.SIGKILL)
"""
Ends process 1 of a container, which the kernel protects from a SIGKILL of its own children. The
parent's handler is `_exit` of the C library, so the exit code is the signal number.
"""


def main() -> None:
    """Watch the parent until it exits; stdin has the configuration as one JSON document."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    parent = os.getppid()
    config = json.loads(sys.stdin.buffer.read())
    memory = mmap.mmap(config["memory_fd"], 0) if config["memory_fd"] is not None else None
    watchdog = Watchdog(config, parent, memory)
    try:
        while os.getppid() == parent and watchdog.poll():
            pass
    finally:
        os._exit(0)  # without waiting for threads


class Watchdog:
    """
    Watches the parent process and kills it when a time limit is reached.

    Args:
        config: `code_limit` and `shutdown_timeout` in seconds; `shutdown_elapsed`, the seconds
            since the parent's first signal, or None; `signal_fd`, the descriptor from which signals
            are read; `settings` for the database and the log; `process`, the number for the log,
            or None.
        parent: its process id.
        memory: where the parent notes its calls of user code; None: nowhere.
    """

    def __init__(self, config: dict[str, Any], parent: int, memory: mmap.mmap | None) -> None:
        self._config, self._parent, self._memory = config, parent, memory
        self._shutdown_deadlines = ShutdownSchedule(config["shutdown_timeout"])
        self._call_number = 0
        self._call_seconds = 0.0
        self._shutdown_elapsed: float | None = config["shutdown_elapsed"]
        self._stuck_call: StuckCallReport | None = None
        self._imports_started = False
        self._last_tick_at = time.monotonic()
        self._signal_poll = select.poll()
        self._signal_poll.register(config["signal_fd"], select.POLLIN)

    def poll(self) -> bool:
        """Wait for a signal or a tick; False when the parent has closed the pipe or exited."""
        if self._signal_poll.poll(POLL_INTERVAL * 1000):
            signal_numbers = os.read(self._config["signal_fd"], 4096)
            if not signal_numbers:
                return False
            self.on_signals(signal_numbers)
        elapsed = time.monotonic() - self._last_tick_at
        if elapsed >= POLL_INTERVAL:
            self._last_tick_at += elapsed
            self.tick(min(elapsed, 2 * POLL_INTERVAL))
        return True

    def on_signals(self, signal_numbers: bytes) -> None:
        """Start the shutdown time if the parent got one of the stop signals."""
        if self._shutdown_elapsed is None and any(
            number in STOP_SIGNALS for number in signal_numbers
        ):
            self._shutdown_elapsed = 0.0

    def tick(self, seconds: float = POLL_INTERVAL) -> None:
        """Count these seconds, unless the parent is stopped; kill it when a limit is reached."""
        if _is_stopped(self._parent):
            return
        if self._shutdown_elapsed is not None:
            self._shutdown_elapsed += seconds
        call_number = self._read_call_number()
        self._call_seconds = (
            self._call_seconds + seconds
            if call_number == self._call_number and call_number % 2
            else 0.0
        )
        self._call_number = call_number
        self._check_call(seconds)
        if (
            self._shutdown_elapsed is not None
            and self._shutdown_elapsed >= self._shutdown_deadlines.shutdown_timeout
        ):
            self._kill_parent()

    def _check_call(self, seconds: float) -> None:
        """Report a call that takes too long, and then kill the parent."""
        stuck_call = self._stuck_call
        if stuck_call is not None and stuck_call.call_number != self._call_number:
            stuck_call = self._stuck_call = None  # the call has returned
        if stuck_call is not None:
            deadlines = self._shutdown_deadlines
            if stuck_call.is_complete(
                seconds,
                self._seconds_until(deadlines.suspect_recording_deadline),
                self._seconds_until(deadlines.close_deadline),
            ):
                self._kill_parent()
        elif self._call_seconds and self._call_timed_out():
            assert self._memory is not None, "a call was noted"
            self._stuck_call = StuckCallReport(self._config, self._call_number, self._memory)
        elif (
            self._call_seconds and self._shutdown_elapsed is not None and not self._imports_started
        ):
            self._imports_started = True
            _BackgroundTask(_preload_imports)

    def _kill_parent(self) -> None:
        if self._stuck_call is not None:
            self._stuck_call.write_fallback_line()
        _kill_and_exit(self._parent)

    def _call_timed_out(self) -> bool:
        over_limit: bool = self._call_seconds >= self._config["code_limit"]
        return over_limit or (
            self._shutdown_elapsed is not None
            and self._shutdown_elapsed >= self._shutdown_deadlines.suspect_recording_at
        )

    def _seconds_until(self, deadline: float) -> float:
        """Seconds until a deadline of the shutdown; infinite without a shutdown."""
        return float("inf") if self._shutdown_elapsed is None else deadline - self._shutdown_elapsed

    def _read_call_number(self) -> int:
        return 0 if self._memory is None else int.from_bytes(self._memory[:8], sys.byteorder)


class StuckCallReport:
    """Reports one call: records it as a crash suspect, then logs it."""

    def __init__(self, config: dict[str, Any], call_number: int, memory: mmap.mmap) -> None:
        self.call_number = call_number
        self._config = config
        self._snapshot = bytes(memory)
        self._stage_elapsed = 0.0
        self._record_task = _BackgroundTask(
            lambda: asyncio.run(_record_suspect(self._config, self._snapshot))
        )
        self._log_task: _BackgroundTask | None = None

    def is_complete(self, seconds: float, record_seconds_left: float, seconds_left: float) -> bool:
        """
        Return whether the report is finished or out of time.

        Args:
            seconds: since the last call of this method.
            record_seconds_left: for recording the suspect.
            seconds_left: for the whole report.
        """
        self._stage_elapsed += seconds
        if self._log_task is not None:
            return self._log_task.done or self._stage_elapsed >= LOG_TIMEOUT or seconds_left <= 0
        if (
            self._record_task.done
            or self._stage_elapsed >= RECORD_TIMEOUT
            or record_seconds_left <= 0
        ):
            self._stage_elapsed = 0.0
            recorded = self._record_task.succeeded
            self._log_task = _BackgroundTask(
                lambda: _log_stuck_call(self._config, self._snapshot, recorded=recorded)
            )
        return seconds_left <= 0

    def write_fallback_line(self) -> None:
        """Log the call as a plain line, unless the log task has finished in time."""
        if self._log_task is not None and self._log_task.succeeded:
            return
        length = int.from_bytes(self._snapshot[8:_HEADER_BYTES], sys.byteorder)
        values = (
            self._snapshot[_HEADER_BYTES : _HEADER_BYTES + length]
            .decode(errors="replace")
            .split("\0")
        )
        names = ("saga", "run_id", "step", "direction", "command", "function")
        line: dict[str, object] = {"level": "error", "event": "user_code.hung"}
        if self._config["process"] is not None:
            line["process"] = self._config["process"]
        line |= dict(zip(names, values, strict=False)) | {"recorded": self._record_task.succeeded}
        stderr_poll = select.poll()
        stderr_poll.register(2, select.POLLOUT)
        with suppress(OSError):
            if stderr_poll.poll(0):
                os.write(2, json.dumps(line).encode() + b"\n")


_HEADER_BYTES = 12
"""Bytes before a note: see `call_time_limit`, which is not imported here."""


class _BackgroundTask:
    """Work in a thread of its own, which may fail or never end."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.done = self.succeeded = False
        self._work = work
        try:
            threading.Thread(target=self._run, daemon=True).start()
        except RuntimeError:  # the thread limit is reached
            self.done = True

    def _run(self) -> None:
        with suppress(BaseException):  # the parent is killed even if this fails
            self._work()
            self.succeeded = True
        self.done = True


def _preload_imports() -> None:
    """Import what recording and logging need, because that takes a while."""
    from saga_engine.store import crash_suspects  # noqa: F401, PLC0415 - see above
    from saga_engine.telemetry import logs, nonblocking_stream  # noqa: F401, PLC0415 - see above


def _is_stopped(pid: int) -> bool:
    """Whether a process is stopped or traced; False if the system has no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] in ("T", "t")


def _settings(config: dict[str, Any]) -> Any:
    from saga_engine.settings import Settings  # noqa: PLC0415 - see above

    return Settings(**config["settings"])


def _read_call(snapshot: bytes) -> list[str]:
    from saga_engine.call_time_limit import decode_call_note  # noqa: PLC0415 - see above

    return decode_call_note(snapshot)[1]


async def _record_suspect(config: dict[str, Any], snapshot: bytes) -> None:
    """Record the call as a crash suspect, so that the next worker processes its run alone."""
    from saga_engine.store import crash_suspects  # noqa: PLC0415 - see above
    from saga_engine.store.database import Database  # noqa: PLC0415 - see above

    settings = _settings(config)
    _, run_id, step, direction, _, function, _ = _read_call(snapshot)
    suspect = crash_suspects.CrashSuspect(
        run_id=run_id, step=step, direction=direction, function=function
    )
    async with (
        asyncio.timeout(RECORD_TIMEOUT),
        Database(settings.require_database_url(), settings) as database,
        database.transaction() as tx,
    ):
        await crash_suspects.record_crash(tx, suspect)


def _log_stuck_call(config: dict[str, Any], snapshot: bytes, *, recorded: bool) -> None:
    """Log `user_code.hung` in the format of the parent's log."""
    from saga_engine.telemetry.events import UserCodeHung  # noqa: PLC0415 - see above
    from saga_engine.telemetry.logs import configure_logging  # noqa: PLC0415 - see above
    from saga_engine.telemetry.nonblocking_stream import nonblocking_writer  # noqa: PLC0415 - see above

    saga, run_id, step, direction, command, function, _ = _read_call(snapshot)
    with nonblocking_writer(sys.stderr) as stream:
        configure_logging(_settings(config), stream, process=config["process"])(
            UserCodeHung(
                saga=saga,
                run_id=run_id,
                step=step,
                direction=direction,
                command=command,
                function=function,
                limit_s=config["code_limit"],
                recorded=recorded,
            )
        )


def _kill_and_exit(parent: int) -> None:
    """Kill the parent, and exit."""
    with suppress(ProcessLookupError):
        os.kill(parent, signal.SIGKILL)
    deadline = time.monotonic() + KILL_TIMEOUT
    while os.getppid() == parent and time.monotonic() < deadline:
        time.sleep(0.02)
    with suppress(ProcessLookupError):
        if os.getppid() == parent:
            os.kill(parent, FALLBACK_KILL_SIGNAL)
    sys.exit(0)


if __name__ == "__main__":
    main()
