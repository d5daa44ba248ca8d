"""
The process beside a worker or participant that ends it when nothing inside it can.

Code in C that does not return holds the interpreter: no signal handler, thread or timer of Python
runs. So the service notes each call into the author's code in shared memory, and lets the
interpreter write each signal it gets into a pipe. The overseer reads both. It ends its parent when
one call takes longer than `mapping_hard_timeout`, after it has recorded the run in PostgreSQL and
has written `user_code.hung` to the log, and when the parent is still there after
`shutdown_timeout`. It ends with its parent.

Recording and writing are done by threads, so that neither a database that does not answer nor a
slow import delays the end. It adds up the time between its looks instead of comparing times, at
most two ticks for each and none while its parent is stopped, so that a process that was frozen is
not taken for one that hangs. Until it acts it imports nothing but what is here.
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
"""Seconds between two looks."""

RECORD_TIMEOUT = 5.0
"""Seconds to record a suspect in PostgreSQL; an unreachable database does not keep the parent."""

LOG_TIMEOUT = 1.0
"""Seconds to write the line that says so."""

KILL_TIMEOUT = 0.5
"""Seconds that SIGKILL has, before LAST_SIGNAL is tried."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

FALLBACK_KILL_SIGNAL = getattr(signal, "SIGRTMAX", signal.SIGKILL)
"""
Ends the first process of a container, which the kernel protects from SIGKILL by its own children.
The parent has the C library's `_exit` as its handler, so the exit code is the signal's number.
"""


def main() -> None:
    """Watch the parent, as one document of JSON on stdin says, until it is gone."""
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
        os._exit(0)  # whatever a thread still does


class Watchdog:
    """
    What the overseer has seen of its parent.

    `told`: `limit` and `shutdown_timeout` in seconds; `draining`, the seconds since the parent's
    first signal,
    or None; `signals`, the descriptor from which signals are read; `settings` for the database and
    the log.
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
        """Wait for a signal or a tick; False when the parent is gone, or needs it no more."""
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
        """The parent got these signals."""
        if self._shutdown_elapsed is None and any(
            number in STOP_SIGNALS for number in signal_numbers
        ):
            self._shutdown_elapsed = 0.0

    def tick(self, seconds: float = POLL_INTERVAL) -> None:
        """Count these seconds, unless the parent is stopped, and end it when a limit is reached."""
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
        """Accuse a call that takes too long, and end the parent when that is done."""
        stuck_call = self._stuck_call
        if stuck_call is not None and stuck_call.call_number != self._call_number:
            stuck_call = self._stuck_call = None  # it has returned after all
        if stuck_call is not None:
            deadlines = self._shutdown_deadlines
            if stuck_call.is_complete(
                seconds,
                self._seconds_until(deadlines.suspect_recording_deadline),
                self._seconds_until(deadlines.close_deadline),
            ):
                self._kill_parent()
        elif self._call_seconds and self._call_timed_out():
            assert self._memory is not None, "there is a note"
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
        """Seconds until a moment of the shutdown, if there is one."""
        return float("inf") if self._shutdown_elapsed is None else deadline - self._shutdown_elapsed

    def _read_call_number(self) -> int:
        return 0 if self._memory is None else int.from_bytes(self._memory[:8], sys.byteorder)


class StuckCallReport:
    """What is done about the call that `note` numbers: record it, then write of it."""

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
        Whether all is done that can be, so many seconds after the last look.

        Args:
            recording: seconds that are left for recording it.
            writing: seconds that are left for all.
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
        """Name the call in a plain line, unless the usual one was written in time."""
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
        line |= dict(zip(names, values, strict=False)) | {"recorded": self._record_task.succeeded}
        stderr_poll = select.poll()
        stderr_poll.register(2, select.POLLOUT)
        with suppress(OSError):
            if stderr_poll.poll(0):
                os.write(2, json.dumps(line).encode() + b"\n")


_HEADER_BYTES = 12
"""Bytes in front of a note: see `worker.alarm`, which is not imported here."""


class _BackgroundTask:
    """Something done by a thread of its own, which may fail or never end."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.done = self.succeeded = False
        self._work = work
        try:
            threading.Thread(target=self._run, daemon=True).start()
        except RuntimeError:  # the system has no thread to give
            self.done = True

    def _run(self) -> None:
        with suppress(BaseException):  # whatever is wrong, the parent is ended
            self._work()
            self.succeeded = True
        self.done = True


def _preload_imports() -> None:
    """Import what is needed to record and to write, because that takes a while."""
    from saga_engine.store import crash_suspects  # noqa: F401, PLC0415 - see above
    from saga_engine.telemetry import logs, nonblocking_stream  # noqa: F401, PLC0415 - see above


def _is_stopped(pid: int) -> bool:
    """Whether a process is stopped or traced; False where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] in ("T", "t")


def _settings(config: dict[str, Any]) -> Any:
    from saga_engine.settings import Settings  # noqa: PLC0415 - see above

    return Settings(**config["settings"])


def _read_call(snapshot: bytes) -> list[str]:
    from saga_engine.worker.time_limit import decode_call_note  # noqa: PLC0415 - see above

    return decode_call_note(snapshot)[1]


async def _record_suspect(config: dict[str, Any], snapshot: bytes) -> None:
    """Record whose call it is, so that the next worker takes it alone."""
    from saga_engine.store import crash_suspects  # noqa: PLC0415 - see above
    from saga_engine.store.database import Database  # noqa: PLC0415 - see above

    settings = _settings(config)
    _, run_id, step, direction, _, function, _ = _read_call(snapshot)
    suspect = crash_suspects.CrashSuspect(run_id, step, direction, function)
    async with (
        asyncio.timeout(RECORD_TIMEOUT),
        Database(settings.require_database_url(), settings) as database,
        database.transaction() as tx,
    ):
        await crash_suspects.record_crash(tx, suspect)


def _log_stuck_call(config: dict[str, Any], snapshot: bytes, *, recorded: bool) -> None:
    """Write `user_code.hung` in the form of the parent's log."""
    from saga_engine.telemetry.events import UserCodeHung  # noqa: PLC0415 - see above
    from saga_engine.telemetry.logs import configure_logging  # noqa: PLC0415 - see above
    from saga_engine.telemetry.nonblocking_stream import nonblocking_writer  # noqa: PLC0415 - see above

    saga, run_id, step, direction, command, function, _ = _read_call(snapshot)
    with nonblocking_writer(sys.stderr) as stream:
        configure_logging(_settings(config), stream)(
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
    """End the parent, and then this process."""
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
