"""
The process beside a worker or participant that ends it when nothing inside it can.

Code in C that does not return holds the interpreter: no signal handler, thread or timer of Python
runs. So the service notes each call into the author's code in shared memory, and lets the
interpreter write each signal it gets into a pipe. The overseer reads both. It ends its parent when
one call takes longer than `code_limit`, after it has recorded the run in PostgreSQL and has written
`code.stuck` to the log, and when the parent is still there after `drain`. It ends with its parent.

It counts ticks instead of comparing times, and none while its parent is stopped, so that a process
that was frozen is not taken for one that hangs. Until it acts it imports nothing but what is here.
"""

import asyncio
import json
import mmap
import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

TICK = 0.25
"""Seconds between two looks."""

GRACE = 1.0
"""Seconds after `drain` before the parent is ended: it ends itself at `drain` if it can."""

RECORDING = 5.0
"""Seconds to record a suspect in PostgreSQL; an unreachable database does not keep the parent."""

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

LAST_SIGNAL = getattr(signal, "SIGRTMAX", signal.SIGKILL)
"""
Ends the first process of a container, which the kernel protects from SIGKILL by its own children.
The parent has the C library's `_exit` as its handler, so the exit code is the signal's number.
"""


def main() -> None:
    """Watch the parent, as told by one line of JSON on stdin, until it is gone."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    told, rest = _told()
    parent = os.getppid()
    memory = mmap.mmap(told["memory"], 0) if told["memory"] is not None else None
    watch = _Look(told, parent, memory)
    ready = select.poll()
    ready.register(0, select.POLLIN)
    watch.signals(rest)
    ticked = time.monotonic()
    while os.getppid() == parent:
        if ready.poll(TICK * 1000):
            numbers = os.read(0, 4096)
            if not numbers:
                return  # the parent is gone, or needs no overseer any more
            watch.signals(numbers)
        if time.monotonic() - ticked >= TICK:
            ticked = time.monotonic()
            watch.tick()


class _Look:
    """What the overseer has seen of its parent."""

    def __init__(self, told: dict[str, Any], parent: int, memory: mmap.mmap | None) -> None:
        self._told, self._parent, self._memory = told, parent, memory
        self._note = 0
        self._in_call = 0.0
        self._draining: float | None = None

    def signals(self, numbers: bytes) -> None:
        """The parent got these signals."""
        if self._draining is None and any(number in STOPPING for number in numbers):
            self._draining = 0.0

    def tick(self) -> None:
        """Count, unless the parent is stopped, and end it when a limit is reached."""
        if _is_stopped(self._parent):
            return
        if self._draining is not None:
            self._draining += TICK
        note = self._number()
        self._in_call = self._in_call + TICK if note == self._note and note % 2 else 0.0
        self._note = note
        if self._in_call >= self._told["limit"]:
            self._stuck(note)
        elif self._draining is not None and self._draining >= self._told["drain"] + GRACE:
            if note % 2:
                self._stuck(note)
            _end(self._parent)

    def _number(self) -> int:
        return 0 if self._memory is None else int.from_bytes(self._memory[:8], sys.byteorder)

    def _stuck(self, note: int) -> None:
        from saga_engine.worker.alarm import read_note  # noqa: PLC0415 - see above

        assert self._memory is not None, "there is a note"
        _, call = read_note(self._memory)
        try:
            recorded = asyncio.run(_record(self._told, call))
        except Exception:  # noqa: BLE001 - whatever is wrong, the parent is ended
            recorded = False
        if self._number() != note:
            self._in_call = 0.0
            return  # it has returned after all
        with suppress(Exception):
            _log(self._told, call, recorded=recorded)
        _end(self._parent)


def _told() -> tuple[dict[str, Any], bytes]:
    """The first line of stdin, and what came after it."""
    written = b""
    while b"\n" not in written:
        more = os.read(0, 65_536)
        if not more:
            sys.exit(0)
        written += more
    line, _, rest = written.partition(b"\n")
    return json.loads(line), rest


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


async def _record(told: dict[str, Any], call: list[str]) -> bool:
    """Record whose call it is, so that the next worker takes it alone."""
    from saga_engine.store import suspects  # noqa: PLC0415 - see above
    from saga_engine.store.database import Database  # noqa: PLC0415 - see above

    settings = _settings(told)
    _, run_id, step, direction, _, function, _ = call
    suspect = suspects.Suspect(run_id, step, direction, function)
    async with (
        asyncio.timeout(RECORDING),
        Database(settings.require_database(), settings) as database,
        database.transaction() as tx,
    ):
        await suspects.accuse(tx, suspect)
    return True


def _log(told: dict[str, Any], call: list[str], *, recorded: bool) -> None:
    """Write `code.stuck` in the form of the parent's log."""
    from saga_engine.telemetry.facts import CodeStuck  # noqa: PLC0415 - see above
    from saga_engine.telemetry.logs import configure  # noqa: PLC0415 - see above
    from saga_engine.telemetry.outlet import unhurried  # noqa: PLC0415 - see above

    saga, run_id, step, direction, command, function, _ = call
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
    os.kill(parent, signal.SIGKILL)
    deadline = time.monotonic() + 1.0
    while os.getppid() == parent and time.monotonic() < deadline:
        time.sleep(0.02)
    with suppress(ProcessLookupError):
        if os.getppid() == parent:
            os.kill(parent, LAST_SIGNAL)
    sys.exit(0)


if __name__ == "__main__":
    main()
