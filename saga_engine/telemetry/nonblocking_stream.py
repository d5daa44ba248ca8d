"""
Where log lines leave the process, without ever waiting for whoever should read them.

A pipe that nobody empties stops its writer, and with it every run. Here what cannot leave at once
is kept for the next line, up to a bound; beyond it lines are lost, and whoever writes is told so.
"""

import errno
import io
import os
import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

KEPT = 1_048_576
"""Bytes that wait at the most: half a minute of a busy worker's lines."""

AT_ONCE = 4096
"""Bytes that a pipe which says it can be written to takes without waiting (PIPE_BUF, pipe(7))."""

LEAVING = 1.0
"""Seconds that what waits has at the end, when the reader is only slow."""


@contextmanager
def unhurried(stream: TextIO) -> Iterator[TextIO]:
    """Give a stream to the same file as *stream* that never waits for it until the block ends."""
    stream.flush()
    outlet = Outlet(stream.fileno())
    text = io.TextIOWrapper(outlet, "utf-8", "backslashreplace", write_through=True)
    try:
        yield text
    finally:
        outlet.leave(LEAVING)


def leave(stream: TextIO, seconds: float = LEAVING) -> None:
    """Write what waits in a stream that `unhurried` gave, before the process ends at once."""
    outlet: object = stream.buffer
    if isinstance(outlet, Outlet):
        outlet.leave(seconds)


class Outlet(io.RawIOBase):
    """Writes to a file descriptor, which stays open, what it takes at once; for any thread."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiting = bytearray()
        self._lock = threading.Lock()
        self._ready = select.poll()
        self._ready.register(descriptor, select.POLLOUT)

    @property
    def name(self) -> str:
        """What it is called where somebody asks a stream."""
        return "<outlet>"

    def fileno(self) -> int:
        """The descriptor that is written to."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether people read it."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, line: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        """
        Write *line*, or keep it for later.

        Raises:
            BlockingIOError: too much waits already; *line* is lost.
            OSError: the file refuses it, as a full disk does; what waited is lost.
        """
        with self._lock:
            self._push()
            if len(self._waiting) + len(line) > KEPT:
                raise BlockingIOError(errno.EAGAIN, "nobody reads the log")
            self._waiting += line
            self._push()
        return len(line)

    def leave(self, seconds: float) -> None:
        """Write what waits, as far as that is possible in the time."""
        with self._lock, suppress(OSError):  # whoever could read of it may be gone
            self._push(time.monotonic() + seconds)

    def _push(self, until: float = 0.0) -> None:
        """Write what is taken at once, and until a moment of the monotonic clock wait for more."""
        while self._waiting and self._ready.poll(max(0.0, until - time.monotonic()) * 1000):
            if until and time.monotonic() > until:
                return
            try:
                written = os.write(self._descriptor, self._waiting[:AT_ONCE])
            except OSError:
                self._waiting.clear()
                raise
            del self._waiting[:written]
