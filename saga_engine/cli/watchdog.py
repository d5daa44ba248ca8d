"""
The process beside a worker or participant that ends it when nothing inside it can.

Code in C that does not return holds the interpreter: no signal handler, thread or timer of Python
runs. So the service notes each call into the author's code in shared memory, and lets the
interpreter write each signal it gets into a pipe. The overseer reads both. It ends its parent when
one call takes longer than `code_limit`, after it has recorded the run in PostgreSQL and has written
`code.stuck` to the log, and when the parent is still there after `drain`. It ends with its parent.

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

from saga_engine.shutdown import Drain

TICK = 0.25
"""Seconds between two looks."""

RECORDING = 5.0
"""Seconds to record a suspect in PostgreSQL; an unreachable database does not keep the parent."""

LOGGING = 1.0
"""Seconds to write the line that says so."""

ENDING = 0.5
"""Seconds that SIGKILL has, before LAST_SIGNAL is tried."""

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

LAST_SIGNAL = getattr(signal, "SIGRTMAX", signal.SIGKILL)
"""
Ends the first process of a container, which the kernel protects from SIGKILL by its own children.
The parent has the C library's `_exit` as its handler, so the exit code is the signal's number.
"""


def main() -> None:
    """Watch the parent, as one document of JSON on stdin says, until it is gone."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    parent = os.getppid()
    told = json.loads(sys.stdin.buffer.read())
    memory = mmap.mmap(told["memory"], 0) if told["memory"] is not None else None
    watch = Overseer(told, parent, memory)
    try:
        while os.getppid() == parent and watch.look():
            pass
    finally:
        os._exit(0)  # whatever a thread still does


class Overseer:
    """
    What the overseer has seen of its parent.

    `told`: `limit` and `drain` in seconds; `draining`, the seconds since the parent's first signal,
    or None; `signals`, the descriptor from which signals are read; `settings` for the database and
    the log.
    """

    def __init__(self, told: dict[str, Any], parent: int, memory: mmap.mmap | None) -> None:
        self._told, self._parent, self._memory = told, parent, memory
        self._drain = Drain(told["drain"])
        self._note = 0
        self._in_call = 0.0
        self._draining: float | None = told["draining"]
        self._accusation: Accusation | None = None
        self._prepared = False
        self._ticked = time.monotonic()
        self._ready = select.poll()
        self._ready.register(told["signals"], select.POLLIN)

    def look(self) -> bool:
        """Wait for a signal or a tick; False when the parent is gone, or needs it no more."""
        if self._ready.poll(TICK * 1000):
            numbers = os.read(self._told["signals"], 4096)
            if not numbers:
                return False
            self.signals(numbers)
        passed = time.monotonic() - self._ticked
        if passed >= TICK:
            self._ticked += passed
            self.tick(min(passed, 2 * TICK))
        return True

    def signals(self, numbers: bytes) -> None:
        """The parent got these signals."""
        if self._draining is None and any(number in STOPPING for number in numbers):
            self._draining = 0.0

    def tick(self, seconds: float = TICK) -> None:
        """Count these seconds, unless the parent is stopped, and end it when a limit is reached."""
        if _is_stopped(self._parent):
            return
        if self._draining is not None:
            self._draining += seconds
        note = self._number()
        self._in_call = self._in_call + seconds if note == self._note and note % 2 else 0.0
        self._note = note
        self._judge(seconds)
        if self._draining is not None and self._draining >= self._drain.seconds:
            self._end()

    def _judge(self, seconds: float) -> None:
        """Accuse a call that takes too long, and end the parent when that is done."""
        accused = self._accusation
        if accused is not None and accused.note != self._note:
            accused = self._accusation = None  # it has returned after all
        if accused is not None:
            drain = self._drain
            if accused.is_complete(seconds, self._left(drain.recorded), self._left(drain.left)):
                self._end()
        elif self._in_call and self._is_too_long():
            assert self._memory is not None, "there is a note"
            self._accusation = Accusation(self._told, self._note, self._memory)
        elif self._in_call and self._draining is not None and not self._prepared:
            self._prepared = True
            _Deed(_imports)

    def _end(self) -> None:
        if self._accusation is not None:
            self._accusation.write_at_once()
        _end(self._parent)

    def _is_too_long(self) -> bool:
        stuck: bool = self._in_call >= self._told["limit"]
        return stuck or (self._draining is not None and self._draining >= self._drain.accused)

    def _left(self, moment: float) -> float:
        """Seconds until a moment of the shutdown, if there is one."""
        return float("inf") if self._draining is None else moment - self._draining

    def _number(self) -> int:
        return 0 if self._memory is None else int.from_bytes(self._memory[:8], sys.byteorder)


class Accusation:
    """What is done about the call that `note` numbers: record it, then write of it."""

    def __init__(self, told: dict[str, Any], note: int, memory: mmap.mmap) -> None:
        self.note = note
        self._told = told
        self._written = bytes(memory)
        self._age = 0.0
        self._recording = _Deed(lambda: asyncio.run(_record(self._told, self._written)))
        self._writing: _Deed | None = None

    def is_complete(self, seconds: float, recording: float, writing: float) -> bool:
        """
        Whether all is done that can be, so many seconds after the last look.

        Args:
            recording: seconds that are left for recording it.
            writing: seconds that are left for all.
        """
        self._age += seconds
        if self._writing is not None:
            return self._writing.done or self._age >= LOGGING or writing <= 0
        if self._recording.done or self._age >= RECORDING or recording <= 0:
            self._age = 0.0
            recorded = self._recording.succeeded
            self._writing = _Deed(lambda: _log(self._told, self._written, recorded=recorded))
        return writing <= 0

    def write_at_once(self) -> None:
        """Name the call in a plain line, unless the usual one was written in time."""
        if self._writing is not None and self._writing.succeeded:
            return
        length = int.from_bytes(self._written[8:_HEADER], sys.byteorder)
        parts = self._written[_HEADER : _HEADER + length].decode(errors="replace").split("\0")
        names = ("saga", "run_id", "step", "direction", "command", "function")
        line: dict[str, object] = {"level": "error", "event": "code.stuck"}
        line |= dict(zip(names, parts, strict=False)) | {"recorded": self._recording.succeeded}
        ready = select.poll()
        ready.register(2, select.POLLOUT)
        with suppress(OSError):
            if ready.poll(0):
                os.write(2, json.dumps(line).encode() + b"\n")


_HEADER = 12
"""Bytes in front of a note: see `worker.alarm`, which is not imported here."""


class _Deed:
    """Something done by a thread of its own, which may fail or never end."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.done = self.succeeded = False
        self._work = work
        try:
            threading.Thread(target=self._do, daemon=True).start()
        except RuntimeError:  # the system has no thread to give
            self.done = True

    def _do(self) -> None:
        with suppress(BaseException):  # whatever is wrong, the parent is ended
            self._work()
            self.succeeded = True
        self.done = True


def _imports() -> None:
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


def _settings(told: dict[str, Any]) -> Any:
    from saga_engine.settings import Settings  # noqa: PLC0415 - see above

    return Settings(**told["settings"])


def _call(written: bytes) -> list[str]:
    from saga_engine.worker.time_limit import read_note  # noqa: PLC0415 - see above

    return read_note(written)[1]


async def _record(told: dict[str, Any], written: bytes) -> None:
    """Record whose call it is, so that the next worker takes it alone."""
    from saga_engine.store import crash_suspects  # noqa: PLC0415 - see above
    from saga_engine.store.database import Database  # noqa: PLC0415 - see above

    settings = _settings(told)
    _, run_id, step, direction, _, function, _ = _call(written)
    suspect = crash_suspects.Suspect(run_id, step, direction, function)
    async with (
        asyncio.timeout(RECORDING),
        Database(settings.require_database(), settings) as database,
        database.transaction() as tx,
    ):
        await crash_suspects.accuse(tx, suspect)


def _log(told: dict[str, Any], written: bytes, *, recorded: bool) -> None:
    """Write `code.stuck` in the form of the parent's log."""
    from saga_engine.telemetry.events import CodeStuck  # noqa: PLC0415 - see above
    from saga_engine.telemetry.logs import configure  # noqa: PLC0415 - see above
    from saga_engine.telemetry.nonblocking_stream import unhurried  # noqa: PLC0415 - see above

    saga, run_id, step, direction, command, function, _ = _call(written)
    with unhurried(sys.stderr) as stream:
        configure(_settings(told), stream)(
            CodeStuck(
                saga=saga,
                run_id=run_id,
                step=step,
                direction=direction,
                command=command,
                function=function,
                limit_s=told["limit"],
                recorded=recorded,
            )
        )


def _end(parent: int) -> None:
    """End the parent, and then this process."""
    with suppress(ProcessLookupError):
        os.kill(parent, signal.SIGKILL)
    deadline = time.monotonic() + ENDING
    while os.getppid() == parent and time.monotonic() < deadline:
        time.sleep(0.02)
    with suppress(ProcessLookupError):
        if os.getppid() == parent:
            os.kill(parent, LAST_SIGNAL)
    sys.exit(0)


if __name__ == "__main__":
    main()
