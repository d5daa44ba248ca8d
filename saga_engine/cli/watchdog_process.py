"""
Having an overseer beside this process, and another one when it is gone (see `overseer`).

The pipe that the interpreter writes signals to is this process's own at both ends, so that it
outlives any overseer. A process without one works as well, and starts another: after FIRST_PAUSE
seconds, then after twice as long, up to LONGEST_PAUSE.
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
from saga_engine.cli.watchdog import LAST_SIGNAL, STOPPING
from saga_engine.settings import Settings
from saga_engine.telemetry.events import OverseerLost, OverseerStarted, Tell
from saga_engine.worker.time_limit import NOTE_BYTES

LOOK = 1.0
"""Seconds between two looks whether it is still there."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before another is started: a system that is short of memory is not asked more often."""

PARTING = 1.0
"""Seconds that an overseer has to end by itself when it is needed no more."""


class Oversight:
    """
    The overseer of this process.

    `memory` is where calls into the author's code are noted; see `worker.alarm`.
    """

    def __init__(self, settings: Settings, memory: int, signals: int) -> None:
        self.memory = mmap.mmap(memory, NOTE_BYTES)
        self._settings = settings
        self._memory, self._signals = memory, signals
        self._process: subprocess.Popen[bytes] | None = None
        self._began: float | None = None
        self.problem = self._start()

    def begin(self) -> None:
        """Note that this process was told to stop just now: a new overseer will not know it."""
        self._began = time.monotonic()

    async def keep(self, tell: Tell) -> None:
        """Start another one when it is gone, until cancelled; one line for it, however long."""
        pause = FIRST_PAUSE
        while True:
            if self.problem:
                tell(OverseerLost(problem=self.problem))
                pause = await self._again(pause)
                tell(OverseerStarted())
            started = time.monotonic()
            while not self.problem:
                await asyncio.sleep(LOOK)
                self.problem = self._lost()
            if time.monotonic() - started > LONGEST_PAUSE:
                pause = FIRST_PAUSE

    async def _again(self, pause: float) -> float:
        while True:
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)
            self.problem = self._start()
            if not self.problem:
                return pause

    def _lost(self) -> str:
        """Why there is none, in a sentence; empty while there is. Asking takes its zombie away."""
        assert self._process is not None, "it was started"
        code = self._process.poll()
        return "" if code is None else f"It ended with {code}."

    def _start(self) -> str:
        """Start one; what is in the way, in a sentence."""
        root = str(Path(saga_engine.__file__).parents[1])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "saga_engine.cli.watchdog"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path},
                pass_fds=(self._memory, self._signals),
                start_new_session=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            return f"It cannot be started: {type(error).__name__}: {error}."
        self._process = process
        assert process.stdin is not None, "it was asked for"
        with suppress(OSError), process.stdin as stdin:  # of one that is gone, `poll` tells
            stdin.write(self._told())
        return ""

    def _told(self) -> bytes:
        settings = self._settings
        url = settings.database_url
        told = {
            "memory": self._memory,
            "signals": self._signals,
            "limit": settings.code_limit,
            "drain": settings.drain,
            "draining": None if self._began is None else time.monotonic() - self._began,
            "settings": {
                "database_url": url.get_secret_value() if url else None,
                "log_format": settings.log_format,
                "log_level": settings.log_level,
            },
        }
        return json.dumps(told).encode()

    def part(self) -> None:
        """Wait until it has ended, after the pipe was closed; end it when it does not."""
        process = self._process
        if process is None:
            return
        try:
            process.wait(PARTING)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def overseen(settings: Settings) -> Iterator[Oversight]:
    """Have an overseer beside this process until the block ends."""
    with ExitStack() as owned:
        memory = owned.enter_context(_shared(NOTE_BYTES))
        signals, ours = os.pipe()
        owned.callback(os.close, signals)
        oversight = Oversight(settings, memory, signals)
        owned.callback(oversight.memory.close)
        owned.callback(oversight.part)
        owned.callback(os.close, ours)
        os.set_blocking(ours, False)
        before = signal.set_wakeup_fd(ours, warn_on_full_buffer=False)
        owned.callback(signal.set_wakeup_fd, before)
        _not_in_children(owned)
        _accept_last_signal()
        yield oversight


def _not_in_children(owned: ExitStack) -> None:
    """
    Have a child that the user's code forks handle its signals as any process does.

    It would inherit the pipe: a signal to it, as `multiprocessing.Pool` sends to end its processes,
    would be taken for one to this process. And it would inherit handlers that do not end it.
    """
    watched = [True]
    owned.callback(watched.clear)

    def in_child() -> None:
        if watched:
            signal.set_wakeup_fd(-1)
            for number in (*STOPPING, signal.SIGALRM):
                if callable(signal.getsignal(number)):
                    signal.signal(number, signal.SIG_DFL)

    os.register_at_fork(after_in_child=in_child)


@contextmanager
def _shared(size: int) -> Iterator[int]:
    """Open memory that another process can have too, by its descriptor."""
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


def _accept_last_signal() -> None:
    """Let the overseer end this process where SIGKILL does not; see `overseer.LAST_SIGNAL`."""
    with suppress(AttributeError, OSError, ValueError):
        library = ctypes.CDLL(None)
        library.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
        library.signal(int(LAST_SIGNAL), ctypes.cast(library["_exit"], ctypes.c_void_p))
